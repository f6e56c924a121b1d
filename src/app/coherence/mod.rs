//! Keeps the local cache true: hears of what others commit, and has the state machine decide what that means.
//!
//! One task reads the store ([`reading`]), one listens to the stream of changes, if there is one; this one takes in what
//! they say, in turn.

mod canary;
mod confirming;
mod peers;
mod reading;

use crate::app::Backing;
use crate::app::coherence::canary::{Answer, Answers, Canary};
use crate::app::coherence::peers::Peers;
use crate::app::coherence::reading::{Reading, Told};
use crate::app::health::{Health, Part};
use crate::cache::change::{Change, Changes};
use crate::cache::coherence::{Coherence, Command, Distrust, Event};
use crate::cache::redis::{self, Body, SharedCache};
use crate::clock::{Clock, Monotonic};
use crate::telemetry::metrics::{RevocationMetrics, StoreMetrics};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Readings that wait to be taken in.
const READINGS_MAX: usize = 4;
/// Between two messages that say only that this process is there: by the number of the next one others notice that they
/// missed one.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);

/// Watches until stopped. Without `metrics` this process is a visitor: it neither measures nor says that it is there.
pub(in crate::app) async fn watch(
    backing: Backing,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    metrics: Option<(RevocationMetrics, StoreMetrics)>,
    stop: CancellationToken,
) {
    let peers = Arc::new(Peers::default());
    let is_visitor = metrics.is_none();
    let mut store_metrics = StoreMetrics::default();
    let (canary, answers) = match metrics {
        Some((metrics, of_store)) => {
            store_metrics = of_store;
            let (credentials, bound) = (Arc::clone(&backing.credentials), backing.cache.trust().bound());
            let (canary, answers) =
                Canary::new(credentials, Arc::clone(&clock), Arc::clone(&peers), metrics, bound);
            (Some(canary), answers)
        }
        // Nobody listens.
        None => (None, mpsc::channel(1).0),
    };
    let canary = async {
        match canary {
            Some(canary) => canary.work().await,
            None => std::future::pending().await,
        }
    };
    let wake = Arc::new(Notify::new());
    let (sender, mut readings) = mpsc::channel(READINGS_MAX);
    let reading = Reading {
        backing: backing.clone(),
        clock: Arc::clone(&clock),
        health: Arc::clone(&health),
        wake: Arc::clone(&wake),
        to: sender,
    };
    let shared = backing.shared.clone();
    let mut stream = shared.as_ref().map(SharedCache::stream);
    let present = async {
        match shared.as_ref().filter(|_| !is_visitor) {
            Some(shared) => be_present(shared, clock.as_ref()).await,
            None => std::future::pending().await,
        }
    };
    let mut keeper = Keeper::new(&backing, Arc::clone(&clock), health, wake, Heard { peers, answers });
    let keep = async {
        let mut confirming: Option<Pin<Box<dyn Future<Output = Monotonic> + Send>>> = None;
        loop {
            if std::mem::take(&mut keeper.is_to_confirm) {
                let all = confirming::confirm(backing.clone(), Arc::clone(&clock), store_metrics.clone());
                confirming = Some(Box::pin(all));
            }
            tokio::select! {
                began = under_way(confirming.as_mut()) => {
                    confirming = None;
                    keeper.on(&Event::Confirmed { began });
                }
                told = readings.recv() => match told {
                    Some(told) => keeper.told(&told),
                    None => return,
                },
                event = heard(stream.as_mut()) => match event {
                    Some(event) => keeper.heard(event),
                    // Its task ended, which it does not do by itself.
                    None => stream = shared.as_ref().map(SharedCache::stream),
                },
            }
        }
    };
    tokio::select! {
        () = reading.work() => {}
        () = present => {}
        () = canary => {}
        () = keep => {}
        () = stop.cancelled() => {}
    }
}

async fn under_way<T>(act: Option<&mut Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match act {
        Some(act) => act.await,
        None => std::future::pending().await,
    }
}

async fn heard(stream: Option<&mut mpsc::Receiver<redis::Event>>) -> Option<redis::Event> {
    match stream {
        Some(stream) => stream.recv().await,
        None => std::future::pending().await,
    }
}

/// Says now and then that this process is there. Whether anybody hears it is told by the stream.
async fn be_present(shared: &SharedCache, clock: &dyn Clock) {
    loop {
        let sent = clock.monotonic();
        drop(shared.publish(Body::Heartbeat { sent }).await);
        tokio::time::sleep(PRESENCE_INTERVAL).await;
    }
}

/// Who else wants to know what is heard.
#[derive(Debug)]
struct Heard {
    peers: Arc<Peers>,
    answers: Answers,
}

/// Takes in what is told, and has the cache do what that means.
#[derive(Debug)]
struct Keeper<'a> {
    backing: &'a Backing,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    wake: Arc<Notify>,
    also: Heard,
    machine: Coherence,
    commands: Vec<Command>,
    /// The machine said so, and it is not under way yet.
    is_to_confirm: bool,
    /// Counts connections to the stream.
    connection: u64,
    is_open: bool,
    /// What was last said of the stream in the log.
    distrust: Option<Distrust>,
}

impl<'a> Keeper<'a> {
    fn new(
        backing: &'a Backing,
        clock: Arc<dyn Clock>,
        health: Arc<Health>,
        wake: Arc<Notify>,
        also: Heard,
    ) -> Self {
        Self {
            backing,
            clock,
            health,
            wake,
            also,
            machine: Coherence::new(),
            commands: Vec::new(),
            is_to_confirm: false,
            connection: 0,
            is_open: false,
            distrust: Some(Distrust::Closed),
        }
    }

    fn told(&mut self, told: &Told) {
        match told {
            Told::Begins { after } => {
                self.on(&Event::ReadingBegins { after: *after });
                // It may have come to be unseen.
                self.backing.cache.forget_unknown();
            }
            Told::Read { asked, changes, is_whole } => {
                if *is_whole {
                    self.backing.cache.trust().store_answered();
                }
                self.on(&Event::Read { asked: *asked, changes, newest: changes.last });
                for change in &changes.changes {
                    if let Change::Credential(digest) = change {
                        self.answer(Answer::Read(*digest));
                    }
                }
            }
        }
    }

    fn heard(&mut self, event: redis::Event) {
        let connection = self.connection;
        match event {
            redis::Event::Connected => {
                self.connection += 1;
                self.is_open = true;
                self.health.works(Part::Redis, true);
                tracing::info!("listening to changes that other replicas tell of");
                self.on(&Event::StreamOpened { connection: self.connection });
            }
            redis::Event::Lost(loss) => {
                let error = &loss as &dyn std::error::Error;
                if std::mem::take(&mut self.is_open) {
                    tracing::error!(error, "changes that other replicas tell of are not heard");
                } else {
                    tracing::debug!(error, "changes that other replicas tell of are still not heard");
                }
                self.health.works(Part::Redis, false);
                self.on(&Event::StreamLost);
            }
            redis::Event::Bad => {
                tracing::warn!(
                    "a message that no replica of ours sent: the stream is not believed for a moment"
                );
                self.on(&Event::Bad);
            }
            redis::Event::Beat(sent) => self.on(&Event::Beat { sent }),
            redis::Event::Message(message) => {
                let (publisher, number) = (message.publisher, message.number);
                let none = Changes::none();
                let changes = match &message.body {
                    Body::Changes(changes) | Body::Canary(changes) => changes,
                    Body::Heartbeat { .. } | Body::Applied { .. } => &none,
                };
                self.on(&Event::Heard { connection, publisher, number, changes });
                let Some(shared) = self.backing.shared.as_ref() else { return };
                match message.body {
                    _ if publisher == shared.publisher() => {}
                    Body::Heartbeat { .. } => self.also.peers.hear(publisher, self.clock.monotonic()),
                    Body::Applied { publisher: asker, number } if asker == shared.publisher() => {
                        self.answer(Answer::Applied(publisher, number));
                    }
                    Body::Canary(_) => {
                        let shared = shared.clone();
                        // Whether it is heard is measured by who asked.
                        drop(tokio::spawn(async move {
                            shared.publish(Body::Applied { publisher, number }).await
                        }));
                    }
                    Body::Changes(_) | Body::Applied { .. } => {}
                }
            }
        }
    }

    fn answer(&self, answer: Answer) {
        // Nobody waits for it, or for so many.
        self.also.answers.try_send(answer).unwrap_or_default();
    }

    fn on(&mut self, event: &Event<'_>) {
        let cache = &self.backing.cache;
        self.machine.on(event, self.clock.monotonic(), &mut self.commands);
        let now = self.clock.unix();
        let mut has_changed = false;
        for command in self.commands.drain(..) {
            has_changed |= matches!(command, Command::Drop(..));
            match command {
                Command::ReadNow => self.wake.notify_one(),
                Command::Confirm => self.is_to_confirm = true,
                _ => {}
            }
            cache.carry_out(command, now);
        }
        if has_changed {
            // What did not exist may do so by now.
            cache.forget_unknown();
        }
        self.tell_of_trust();
    }

    /// What the stream is worth, in the log, when that changes.
    fn tell_of_trust(&mut self) {
        let distrust = self.machine.distrust();
        if distrust != self.distrust && self.backing.shared.is_some() {
            tracing::debug!(?distrust, "the stream of changes");
        }
        self.distrust = distrust;
    }
}
