//! Listens to what the others say, and tells when it no longer does.
//!
//! Redis' Pub/Sub keeps nothing: what is said while nobody listens is lost. So it is told from when on everything is
//! heard ([`Event::Connected`]) and when that ends ([`Event::Lost`]). What follows from it is decided elsewhere.
//!
//! Not client-side caching (`CLIENT TRACKING`): a message has a seal and a number, its order with the writes of the same
//! server is kept as well, and one channel is all that an ACL has to allow.

use crate::cache::redis::dial::{self, DialError, One};
use crate::cache::redis::link::jittered;
use crate::cache::redis::message::Message;
use crate::cache::redis::seal::Keys;
use crate::cache::redis::settings::{Settings, Topology};
use crate::clock::{Clock, Monotonic};
use ::redis::{PushInfo, PushKind, RedisError, Value, cmd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that wait for who decides.
const EVENTS_MAX: usize = 1024;
/// Messages that wait behind them; with more of them the stream is lost.
const PUSHES_MAX: usize = 4096;
/// Between two looks whether the server is there, and a primary.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// For its answer; with the interval, a server that hangs is noticed after 400 ms.
const CHECK_TIME: Duration = Duration::from_millis(200);
/// Before another attempt to listen.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The same after some of them.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// For a connection and its subscription, though some sentinels or nodes are not there; each has a limit of its own.
const LISTEN_TIME: Duration = Duration::from_secs(5);

/// What is heard.
#[derive(Debug)]
pub enum Event {
    /// From now on every message is heard.
    Connected,
    /// The server, asked at this moment over the connection that is listened to, has answered: all that was published
    /// before has been told.
    Beat(Monotonic),
    /// Somebody with our key said this.
    Message(Message),
    /// Somebody else said something, or it was changed on its way.
    Bad,
    /// Nothing is heard any more, or there is still no connection.
    Lost(Loss),
}

/// Why nothing is heard.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    /// There is no connection.
    #[error("cannot listen to Redis")]
    Unconnected(#[source] DialError),
    /// The channel may not be listened to.
    #[error("Redis lets nobody listen")]
    Refused(#[source] RedisError),
    /// The connection ended.
    #[error("the connection to Redis ended")]
    Disconnected,
    /// The server does not answer.
    #[error("Redis did not answer in time")]
    Silent,
    /// Messages came faster than they were dealt with.
    #[error("there were more messages than could be dealt with")]
    Overrun,
}

/// Listens until the receiver is dropped. Must be called on a runtime, which does the work.
pub(super) fn listen(
    settings: Arc<Settings>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let listener = Listener { settings, keys, clock, events: events.clone() };
        tokio::select! {
            () = listener.work() => {}
            () = events.closed() => {}
        }
    });
    receiver
}

#[derive(Debug)]
struct Listener {
    settings: Arc<Settings>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<Event>,
}

/// What the connection's own task hands over.
#[derive(Debug)]
struct Pushes {
    queue: mpsc::Receiver<PushInfo>,
    overrun: Arc<AtomicBool>,
}

impl Listener {
    /// Returns when nobody is interested any more.
    async fn work(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let opened = timeout(LISTEN_TIME, self.open()).await;
            let loss = match opened.unwrap_or(Err(Loss::Silent)) {
                Ok((one, pushes)) => {
                    pause = PAUSE_MIN;
                    if self.events.send(Event::Connected).await.is_err() {
                        return;
                    }
                    self.follow(one, pushes).await
                }
                Err(loss) => loss,
            };
            if self.events.send(Event::Lost(loss)).await.is_err() {
                return;
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    async fn open(&self) -> Result<(One, Pushes), Loss> {
        let (sender, queue) = mpsc::channel(PUSHES_MAX);
        let overrun = Arc::new(AtomicBool::new(false));
        let pushed = {
            let overrun = Arc::clone(&overrun);
            move |push| {
                if sender.try_send(push).is_err() {
                    overrun.store(true, Ordering::Release);
                }
            }
        };
        let channel = self.keys.channel();
        let mut one = dial::pushes(&self.settings, channel, pushed).await.map_err(Loss::Unconnected)?;
        one.subscribe(channel).await.map_err(Loss::Refused)?;
        Ok((one, Pushes { queue, overrun }))
    }

    /// Tells what is heard, until nothing is.
    async fn follow(&self, mut one: One, mut pushes: Pushes) -> Loss {
        loop {
            let sent = {
                let mut check = std::pin::pin!(self.check(&mut one));
                loop {
                    tokio::select! {
                        biased;
                        push = pushes.queue.recv() => {
                            let Some(push) = push else { return Loss::Disconnected };
                            if let Err(loss) = self.tell(push, &pushes).await {
                                return loss;
                            }
                        }
                        sent = &mut check => break sent,
                    }
                }
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(loss) => return loss,
            };
            // What came before the answer waits already.
            while let Ok(push) = pushes.queue.try_recv() {
                if let Err(loss) = self.tell(push, &pushes).await {
                    return loss;
                }
            }
            if self.events.send(Event::Beat(sent)).await.is_err() {
                return Loss::Disconnected;
            }
        }
    }

    async fn tell(&self, push: PushInfo, pushes: &Pushes) -> Result<(), Loss> {
        // One was dropped; what waits before it is of no use without it.
        if pushes.overrun.load(Ordering::Acquire) {
            return Err(Loss::Overrun);
        }
        let event = match push.kind {
            PushKind::Message => self.read(&push.data),
            PushKind::Disconnection | PushKind::Unsubscribe => return Err(Loss::Disconnected),
            _ => return Ok(()),
        };
        self.events.send(event).await.map_err(|_| Loss::Disconnected)
    }

    fn read(&self, data: &[Value]) -> Event {
        let channel = self.keys.channel();
        let message = match data {
            [Value::BulkString(name), Value::BulkString(sealed)] if name == channel.as_bytes() => {
                Message::open(&self.keys.messages, channel, sealed)
            }
            _ => None,
        };
        message.map_or(Event::Bad, Event::Message)
    }

    /// Asks the server, in a moment, over the connection that is listened to. Yields when it was asked.
    async fn check(&self, one: &mut One) -> Result<Monotonic, Loss> {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let sent = self.clock.monotonic();
        timeout(CHECK_TIME, self.check_once(one)).await.unwrap_or(Err(Loss::Silent))?;
        Ok(sent)
    }

    async fn check_once(&self, one: &mut One) -> Result<(), Loss> {
        one.assert_primary().await.map_err(Loss::Unconnected)?;
        if matches!(self.settings.topology, Topology::Cluster(_)) {
            // A node that no longer has the slot says so.
            one.ask(cmd("EXISTS").arg(&**self.keys.channel())).await.map_err(Loss::Refused)?;
        }
        Ok(())
    }
}
