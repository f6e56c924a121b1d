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
pub(super) fn listen(settings: Arc<Settings>, keys: Arc<Keys>) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let listener = Listener { settings, keys, events: events.clone() };
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
    async fn follow(&self, one: One, mut pushes: Pushes) -> Loss {
        let mut checks = std::pin::pin!(self.check(one));
        loop {
            let push = tokio::select! {
                biased;
                push = pushes.queue.recv() => push,
                loss = &mut checks => return loss,
            };
            // One was dropped; what waits before it is of no use without it.
            if pushes.overrun.load(Ordering::Acquire) {
                return Loss::Overrun;
            }
            let Some(PushInfo { kind, data }) = push else { return Loss::Disconnected };
            let event = match kind {
                PushKind::Message => self.read(&data),
                PushKind::Disconnection | PushKind::Unsubscribe => return Loss::Disconnected,
                _ => continue,
            };
            if self.events.send(event).await.is_err() {
                return Loss::Disconnected;
            }
        }
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

    /// Asks the server again and again over the connection that is listened to; returns when it is of no use.
    async fn check(&self, mut one: One) -> Loss {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            match timeout(CHECK_TIME, self.check_once(&mut one)).await {
                Ok(Ok(())) => {}
                Ok(Err(loss)) => return loss,
                Err(_) => return Loss::Silent,
            }
        }
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
