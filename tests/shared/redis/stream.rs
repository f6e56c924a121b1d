//! What replicas tell each other: heard in order by all, made by nobody else, and never lost in silence.

use super::{
    KEY, PREFIX, Replica, STORE, change, changed, connected, credential, eventually, heartbeat, keys, next,
    settings, value, works,
};
use crate::services::redis::Redis;
use doorward::cache::change::{Changes, Sequence};
use doorward::cache::coherence::Publisher;
use doorward::cache::redis::{Away, Body, Event, Keys, Loss, MESSAGE_BYTES_MAX, Message, Settings};
use doorward::secret::Secret;
use redis::Commands as _;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The next message; whatever else happens is a failure.
async fn message(events: &mut mpsc::Receiver<Event>) -> Message {
    match next(events).await {
        Event::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

/// The next loss; messages before it are no matter.
async fn lost(events: &mut mpsc::Receiver<Event>) -> Loss {
    loop {
        match next(events).await {
            Event::Lost(loss) => return loss,
            Event::Message(_) | Event::Bad | Event::Beat(_) => {}
            Event::Connected => panic!("the stream was not lost"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is about real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn all_hear_all_in_the_order_of_their_numbers() {
    let server = Redis::start();
    let (one, other) = (Replica::new(settings(&server)), Replica::new(settings(&server)));
    let (mut at_one, mut at_other) = (one.cache.stream(), other.cache.stream());
    connected(&mut at_one).await;
    connected(&mut at_other).await;
    for number in 1..=20 {
        assert_eq!(one.cache.publish(heartbeat(number)).await.unwrap(), number);
        assert_eq!(other.cache.publish(heartbeat(100 + number)).await.unwrap(), number);
    }
    for events in [&mut at_one, &mut at_other] {
        for number in 1..=20 {
            let said = |replica: &Replica, sent| {
                let publisher = replica.cache.publisher();
                Message { publisher, number, body: heartbeat(sent) }
            };
            assert_eq!(message(events).await, said(&one, number));
            assert_eq!(message(events).await, said(&other, 100 + number));
        }
    }
}

#[tokio::test]
async fn who_hears_of_a_change_finds_nothing_old() {
    let server = Redis::start();
    let (revoker, reader) = (Replica::new(settings(&server)), Replica::new(settings(&server)));
    let mut events = reader.cache.stream();
    connected(&mut events).await;
    let mut times = Vec::new();
    for number in 1..=300 {
        let name = format!("token {number}");
        let key = credential(&name);
        assert!(reader.put(&key, &value(Some(number - 1))).await);
        let void = changed(&name, Some(number));
        let began = now();
        let heard = async {
            let heard = message(&mut events).await;
            times.push(began.elapsed());
            heard
        };
        let (done, heard) = tokio::join!(revoker.cache.invalidate(&void), heard);
        done.unwrap();
        assert_eq!(heard.body, Body::Changes(void));
        assert!(reader.finds(&key).await.is_none());
    }
    times.sort_unstable();
    let [half, most, last] = [times[150], times[297], times[299]];
    println!("from the call to who hears it: p50 {half:?}, p99 {most:?}, at most {last:?}");
}

/// They are told in the order in which they were given, however they were put together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_changes_is_told_without_a_gap() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let began = replica.cache.publish(heartbeat(0)).await.unwrap();
    let start = now();
    let all: Vec<_> = (0..500)
        .map(|number| {
            let cache = replica.cache.clone();
            let void = changed(&format!("token {number}"), (number % 2 == 1).then_some(number));
            tokio::spawn(async move { cache.invalidate(&void).await })
        })
        .collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    println!("500 invalidations at a time: {:?}", start.elapsed());
    let ended = replica.cache.publish(heartbeat(1)).await.unwrap();
    println!("in {} messages", ended - began - 1);
    assert_eq!(message(&mut events).await.number, began);
    let mut heard = BTreeSet::new();
    for number in began + 1..ended {
        let Message { number: told, body: Body::Changes(changes), .. } = message(&mut events).await else {
            panic!("no changes")
        };
        assert_eq!(told, number);
        for change in changes.changes {
            assert!(heard.insert(format!("{change:?}{}", digest(change))), "told twice");
        }
    }
    assert_eq!(heard.len(), 500);
    assert_eq!(message(&mut events).await.number, ended);
}

fn digest(change: doorward::cache::change::Change) -> String {
    match change {
        doorward::cache::change::Change::Credential(digest) => format!("{:?}", digest.0),
        other => panic!("{other:?}"),
    }
}

/// Who was told something that nobody heard learns that something is missing.
#[tokio::test]
async fn what_could_not_be_told_leaves_a_gap_if_it_was_a_change() {
    let mut server = Redis::start();
    let quick = Duration::from_millis(50);
    let replica = Replica::new(Settings { timeout: quick, ..settings(&server) }).connected().await;
    let number = replica.cache.publish(heartbeat(1)).await.unwrap();
    server.kill();
    eventually("nobody is asked", async || {
        matches!(replica.cache.publish(heartbeat(1)).await, Err(Away::Paused))
    })
    .await;
    server.restart();
    works(&replica.cache).await;
    let before = replica.cache.publish(heartbeat(1)).await.unwrap();
    server.kill();
    eventually("nobody is asked", async || {
        matches!(replica.cache.publish(heartbeat(1)).await, Err(Away::Paused))
    })
    .await;
    for _ in 0..3 {
        assert!(replica.cache.invalidate(&changed("token", None)).await.is_err());
    }
    server.restart();
    works(&replica.cache).await;
    let after = replica.cache.publish(heartbeat(1)).await.unwrap();
    println!("numbers: {number} before, {before} after heartbeats alone, {after} after changes");
    // A few of them were under way when the server went.
    assert!(before - number <= 4, "{number} {before}");
    assert!(after - before >= 5, "{before} {after}");
}

#[tokio::test]
async fn more_changes_than_a_message_names_are_everything() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let changes: Vec<_> = (0..1_001).map(|number| change(&number.to_string())).collect();
    replica.cache.invalidate(&Changes::numbered(Sequence(0), changes)).await.unwrap();
    let told = Changes::everything(Sequence(0), Sequence(1_001));
    assert_eq!(message(&mut events).await.body, Body::Changes(told));
}

#[tokio::test]
async fn what_others_say_is_bad_and_is_told() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let ours = keys();
    let said = Message { publisher: Publisher(1), number: 1, body: heartbeat(1) };
    let sealed = |key: &str, store: &[u8], channel: &str| {
        let keys = Keys::new(&Secret::new(key), store, PREFIX).unwrap();
        said.seal(&keys.messages, channel).unwrap()
    };
    let good = sealed(KEY, STORE, ours.channel());
    let mut changed = good.clone();
    changed[20] ^= 1;
    let value = value(None).seal(&ours.values, ours.channel()).unwrap();
    let cases = [
        ("nothing", Vec::new()),
        ("garbage", vec![7; 100]),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("changed", changed),
        ("another key", sealed("another-key-of-a-deployment-0123456789", STORE, ours.channel())),
        ("another store", sealed(KEY, b"another-store", ours.channel())),
        ("another channel", sealed(KEY, STORE, "doorward:stream:other")),
        ("a value", value),
        ("large", vec![7; MESSAGE_BYTES_MAX + 1]),
    ];
    let mut connection = server.connection();
    for (what, bytes) in cases {
        let heard: u64 = connection.publish(&**ours.channel(), bytes).unwrap();
        assert_eq!(heard, 1);
        assert!(matches!(next(&mut events).await, Event::Bad), "{what}");
    }
    // What was said once can be said again; its number tells.
    for _ in 0..2 {
        connection.publish::<_, _, ()>(&**ours.channel(), &good).unwrap();
        assert_eq!(message(&mut events).await, said);
    }
}

#[tokio::test]
async fn a_huge_message_ends_the_connection_and_not_the_process() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    // Not so large that Redis itself ends the connection (client-output-buffer-limit).
    let heard: u64 = server.connection().publish(&**keys().channel(), vec![7_u8; 4 << 20]).unwrap();
    assert_eq!(heard, 1);
    assert!(matches!(lost(&mut events).await, Loss::Disconnected));
    connected(&mut events).await;
    let number = replica.cache.publish(heartbeat(1)).await.unwrap();
    assert_eq!(message(&mut events).await.number, number);
}

#[tokio::test]
async fn who_cannot_keep_up_is_told() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let mut connection = server.connection();
    for _ in 0..10 {
        let mut flood = redis::pipe();
        for _ in 0..1_000 {
            flood.cmd("PUBLISH").arg(&**keys().channel()).arg("x").ignore();
        }
        flood.exec(&mut connection).unwrap();
    }
    assert!(matches!(lost(&mut events).await, Loss::Overrun));
    connected(&mut events).await;
}

#[tokio::test]
async fn an_end_of_the_connection_is_told_at_once() {
    let mut server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut connection = server.connection();
        let began = now();
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut connection).unwrap();
        assert!(matches!(lost(&mut events).await, Loss::Disconnected));
        times.push(began.elapsed());
        connected(&mut events).await;
    }
    server.kill();
    assert!(matches!(lost(&mut events).await, Loss::Disconnected));
    assert!(matches!(lost(&mut events).await, Loss::Unconnected(_)));
    server.restart();
    connected(&mut events).await;
    works(&replica.cache).await;
    let number = replica.cache.publish(heartbeat(1)).await.unwrap();
    eventually("its own message", async || message(&mut events).await.number == number).await;
    println!("CLIENT KILL to the loss: {times:?}");
}

#[tokio::test]
async fn a_server_that_hangs_is_told_within_half_a_second() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = now();
        server.pause();
        assert!(matches!(lost(&mut events).await, Loss::Silent));
        times.push(began.elapsed());
        server.resume();
        connected(&mut events).await;
    }
    println!("SIGSTOP to the loss: {times:?}");
    times.sort_unstable();
    // Half of them, since other processes take their share of this machine.
    assert!(times[2] < Duration::from_millis(500), "{times:?}");
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let mut connection = server.connection();
    // Of nobody who is there; its clients stay connected.
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut connection).unwrap();
    assert!(
        matches!(lost(&mut events).await, Loss::Unconnected(error) if error.to_string().contains("not a primary"))
    );
    assert!(replica.cache.invalidate(&changed("token", None)).await.is_err());
    eventually("no connection", async || {
        drop(replica.cache.publish(heartbeat(1)).await);
        !replica.cache.state().works
    })
    .await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut connection).unwrap();
    connected(&mut events).await;
    works(&replica.cache).await;
    replica.cache.invalidate(&changed("token", None)).await.unwrap();
}
