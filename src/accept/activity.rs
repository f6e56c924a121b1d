//! What a connection is doing, so that it can be closed when a client keeps it open for nothing.
//!
//! Three waits are the client's: for the head of a request, for the next request, and for room to send an answer
//! that the client does not read. All other waits are somebody else's and bounded elsewhere.

use crate::clock::{Clock, Monotonic};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest waits for a client.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the head of a request, from its first byte; for the first request, from the start.
    pub header_time: Duration,
    /// For the next request.
    pub keep_alive: Duration,
    /// For room to send.
    pub send_idle: Duration,
}

impl Patience {
    /// Between two looks at most: whatever begins after one look is due no sooner than this.
    fn shortest(&self) -> Duration {
        self.header_time.min(self.keep_alive).min(self.send_idle)
    }
}

/// Between two looks at least.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What one connection is doing; shared with its requests.
#[derive(Debug)]
pub struct Activity {
    clock: Arc<dyn Clock>,
    /// Requests under way.
    in_flight: AtomicUsize,
    /// Of these, how many have something to send that the client has not made room for.
    waits_for_client: AtomicUsize,
    /// The last time anything happened.
    last: AtomicU64,
    /// Since when a request's head is being received; 0: none is.
    head_since: AtomicU64,
    /// Nothing came from the client yet: it may never want anything (browsers connect in advance).
    is_silent: AtomicBool,
    /// Heads can be told from other traffic: over HTTP/1.1, and before the first request.
    tells_heads: AtomicBool,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Keep,
    /// It has been idle for long enough: ask to close it.
    Idle,
    /// The client takes too long: close it.
    TooSlow,
}

impl Activity {
    /// A connection that was just opened; its first request is due.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.monotonic().0;
        Self {
            clock,
            in_flight: AtomicUsize::new(0),
            waits_for_client: AtomicUsize::new(0),
            last: AtomicU64::new(now),
            head_since: AtomicU64::new(now),
            is_silent: AtomicBool::new(true),
            tells_heads: AtomicBool::new(true),
        }
    }

    /// Whatever the connection waits for, it waits from now on.
    pub fn touch(&self) {
        self.last.store(self.clock.monotonic().0, Ordering::Relaxed);
    }

    /// No first request is due any more, if it has not begun to come: the connection is as idle as between two, and its
    /// head has its time from its first byte on. Whether that is so; over HTTP/2 (`is_http2`) whatever came before a
    /// request may be the connection's own.
    pub fn excuse(&self, is_http2: bool) -> bool {
        let awaited = if is_http2 { &self.tells_heads } else { &self.is_silent };
        let is_excused = awaited.load(Ordering::Relaxed);
        if is_excused {
            self.head_since.store(0, Ordering::Relaxed);
        }
        is_excused
    }

    /// Bytes came from the client.
    pub fn received(&self) {
        if self.is_silent.load(Ordering::Relaxed) {
            self.is_silent.store(false, Ordering::Relaxed);
        }
        if self.in_flight.load(Ordering::Relaxed) == 0
            && self.tells_heads.load(Ordering::Relaxed)
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.clock.monotonic().0, Ordering::Relaxed);
        }
    }

    /// A request begins; `tells_heads` is whether the next one's head can be told from other traffic.
    pub fn begin(self: &Arc<Self>, tells_heads: bool) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.tells_heads.store(tells_heads, Ordering::Relaxed);
        InFlight { activity: Arc::clone(self), waits_for_client: false }
    }

    /// What is to be done now.
    pub fn judge(&self, patience: &Patience) -> Judgement {
        let now = self.clock.monotonic();
        let since = |moment: u64| now.since(Monotonic(moment));
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let last = since(self.last.load(Ordering::Relaxed));
        if in_flight == 0 {
            return match self.head_since.load(Ordering::Relaxed) {
                0 if last >= patience.keep_alive => Judgement::Idle,
                0 => Judgement::Keep,
                head if since(head) >= patience.header_time => Judgement::TooSlow,
                _ => Judgement::Keep,
            };
        }
        let all_wait = self.waits_for_client.load(Ordering::Relaxed) >= in_flight;
        if all_wait && last >= patience.send_idle { Judgement::TooSlow } else { Judgement::Keep }
    }

    /// When to look again: when the wait under way is over, if that is sooner than any that may begin meanwhile.
    pub fn next_look(&self, patience: &Patience) -> Duration {
        let now = self.clock.monotonic();
        let since = |moment: &AtomicU64| now.since(Monotonic(moment.load(Ordering::Relaxed)));
        let is_idle = self.in_flight.load(Ordering::Relaxed) == 0;
        let due = match (is_idle, self.head_since.load(Ordering::Relaxed)) {
            (true, 0) => patience.keep_alive.saturating_sub(since(&self.last)),
            (true, _) => patience.header_time.saturating_sub(since(&self.head_since)),
            (false, _) => patience.send_idle.saturating_sub(since(&self.last)),
        };
        due.clamp(LOOK_AGAIN, patience.shortest().max(LOOK_AGAIN))
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight {
    activity: Arc<Activity>,
    waits_for_client: bool,
}

impl InFlight {
    fn wait_for_client(&mut self, waits: bool) {
        if waits {
            // Each further piece says that the client has made room for the one before.
            self.activity.touch();
        }
        if self.waits_for_client != waits {
            self.waits_for_client = waits;
            if waits {
                self.activity.waits_for_client.fetch_add(1, Ordering::Relaxed);
            } else {
                self.activity.waits_for_client.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wait_for_client(false);
        self.activity.touch();
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that tells the connection whose turn it is.
#[derive(Debug)]
pub struct TrackedBody<B> {
    body: B,
    in_flight: InFlight,
}

impl<B> TrackedBody<B> {
    /// Tracks `body` until it is dropped.
    pub fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // With a frame in hand hyper asks for the next once there is room.
        self.in_flight.wait_for_client(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixSeconds};

    const PATIENCE: Patience = Patience {
        header_time: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        send_idle: Duration::from_secs(30),
    };

    fn start() -> (Arc<ManualClock>, Arc<Activity>) {
        let clock = Arc::new(ManualClock::new(UnixSeconds(0)));
        let activity = Arc::new(Activity::new(Arc::<ManualClock>::clone(&clock)));
        (clock, activity)
    }

    #[test]
    fn the_first_request_is_due_at_once() {
        let (clock, activity) = start();
        clock.advance(Duration::from_secs(9));
        assert_eq!(activity.judge(&PATIENCE), Judgement::Keep);
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&PATIENCE), Judgement::TooSlow);
    }

    #[test]
    fn a_first_request_that_has_not_begun_may_be_excused() {
        let parting = Patience { keep_alive: Duration::from_secs(1), ..PATIENCE };
        let (clock, activity) = start();
        assert!(activity.excuse(false));
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&parting), Judgement::Idle);
        // It comes after all, and has its time.
        activity.received();
        clock.advance(Duration::from_secs(9));
        assert_eq!(activity.judge(&parting), Judgement::Keep);
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&parting), Judgement::TooSlow);
        let (clock, activity) = start();
        activity.received();
        assert!(!activity.excuse(false), "its head is on its way");
        assert!(activity.excuse(true), "a preface is no head");
        drop(activity.begin(false));
        assert!(!activity.excuse(true), "the first one has come");
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&parting), Judgement::Idle);
    }

    #[test]
    fn an_idle_connection_is_kept_for_a_while() {
        let (clock, activity) = start();
        drop(activity.begin(true));
        clock.advance(Duration::from_secs(74));
        assert_eq!(activity.judge(&PATIENCE), Judgement::Keep);
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&PATIENCE), Judgement::Idle);
    }

    #[test]
    fn a_look_comes_when_a_wait_is_over() {
        let (clock, activity) = start();
        assert_eq!(activity.next_look(&PATIENCE), PATIENCE.header_time);
        drop(activity.begin(true));
        assert_eq!(activity.next_look(&PATIENCE), PATIENCE.header_time, "a head may begin any moment");
        clock.advance(Duration::from_secs(70));
        assert_eq!(activity.next_look(&PATIENCE), Duration::from_secs(5));
    }

    #[test]
    fn a_head_that_trickles_is_too_slow() {
        let (clock, activity) = start();
        drop(activity.begin(true));
        clock.advance(Duration::from_secs(20));
        activity.received();
        clock.advance(Duration::from_secs(9));
        activity.received();
        assert_eq!(activity.judge(&PATIENCE), Judgement::Keep);
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&PATIENCE), Judgement::TooSlow);
    }

    #[test]
    fn a_client_that_does_not_read_is_too_slow() {
        let (clock, activity) = start();
        let mut one = activity.begin(true);
        let two = activity.begin(true);
        one.wait_for_client(true);
        clock.advance(Duration::from_mins(1));
        assert_eq!(activity.judge(&PATIENCE), Judgement::Keep, "the other one waits for its upstream");
        drop(two);
        clock.advance(Duration::from_secs(30));
        assert_eq!(activity.judge(&PATIENCE), Judgement::TooSlow);
        one.wait_for_client(false);
        assert_eq!(activity.judge(&PATIENCE), Judgement::Keep);
    }

    #[test]
    fn a_client_that_reads_slowly_is_not_too_slow() {
        let (clock, activity) = start();
        let mut one = activity.begin(true);
        for _ in 0..3 {
            // The upstream is always faster: a piece waits at every moment, but not the same one.
            one.wait_for_client(true);
            clock.advance(Duration::from_secs(29));
            assert_eq!(activity.judge(&PATIENCE), Judgement::Keep);
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(activity.judge(&PATIENCE), Judgement::TooSlow);
    }
}
