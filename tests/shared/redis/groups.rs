//! Several servers: one that Sentinels name, and a Cluster. Whatever becomes of them, what is told is heard, or its loss is.

use super::access::{all_of_it, rules, sentinel_rules, settings};
use super::{
    KEY, PREFIX, Replica, change, changed, connected, credential, eventually, heartbeat, keys, next, value,
    works,
};
use crate::services::cluster::RedisCluster;
use crate::services::sentinel::{NAME, RedisSentinel};
use doorward::cache::change::Changes;
use doorward::cache::redis::{Body, Event, Keys, Settings};
use doorward::clock::SystemClock;
use doorward::secret::Secret;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Addresses as a URL lists them.
fn hosts(urls: &[String]) -> String {
    let host = |url: &String| url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
    urls.iter().map(host).collect::<Vec<_>>().join(",")
}

fn of_sentinels(group: &RedisSentinel) -> Settings {
    settings(&format!("url = \"redis+sentinel://{}/{NAME}\"", hosts(&group.urls())))
}

fn of_cluster(cluster: &RedisCluster) -> Settings {
    settings(&format!("url = \"redis+cluster://{}\"", hosts(&cluster.urls())))
}

/// Whether its own message comes back.
async fn echoes(replica: &Replica, events: &mut mpsc::Receiver<Event>) {
    let number = replica.cache.publish(heartbeat(1)).await.unwrap();
    eventually("its own message", async || match next(events).await {
        Event::Message(message) => message.number == number,
        _ => false,
    })
    .await;
}

/// A loss is told, then the stream stands again.
async fn recovers(replica: &Replica, events: &mut mpsc::Receiver<Event>) {
    while !matches!(next(events).await, Event::Lost(_)) {}
    connected(events).await;
    works(&replica.cache).await;
    echoes(replica, events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_that_sentinels_name_is_followed() {
    let mut group = RedisSentinel::start();
    all_of_it(of_sentinels(&group)).await;
    let replica = Replica::new(of_sentinels(&group)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    echoes(&replica, &mut events).await;
    let key = credential("kept");
    assert!(replica.put(&key, &value(Some(1))).await);
    group.fail_over();
    recovers(&replica, &mut events).await;
    eventually("a look-up", async || replica.cache.get(&key).await.is_ok()).await;
    replica.cache.invalidate(&changed("kept", Some(2))).await.unwrap();
    assert!(replica.finds(&key).await.is_none());
    // The old primary comes back as a replica; nobody goes there.
    let lease = replica.cache.get(&key).await.unwrap().lease.unwrap();
    assert!(replica.cache.fill(&key, lease, &value(Some(2))).await.unwrap());
    let there: bool = redis::cmd("EXISTS").arg(keys().name(&key)).query(&mut group.connection()).unwrap();
    assert!(there, "what is filled is at the primary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_is_gone_is_passed_over() {
    let group = RedisSentinel::start();
    let mut urls = group.urls();
    urls.insert(0, "redis://127.0.0.1:1/".into());
    let lines = format!("url = \"redis+sentinel://{}/{NAME}\"", hosts(&urls));
    all_of_it(settings(&lines)).await;
    let unknown = Replica::new(settings(&lines.replace(&format!("/{NAME}"), "/unknown")));
    eventually("why not", async || {
        unknown
            .cache
            .state()
            .why
            .is_some_and(|why| why.to_string().contains("no sentinel names a primary of unknown"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_has_everything_where_it_belongs() {
    let cluster = RedisCluster::start();
    all_of_it(of_cluster(&cluster)).await;
    let (one, other) = (Replica::new(of_cluster(&cluster)), Replica::new(of_cluster(&cluster)));
    works(&one.cache).await;
    works(&other.cache).await;
    let mut events = other.cache.stream();
    connected(&mut events).await;
    let names: Vec<_> = (0..200).map(|number| format!("token {number}")).collect();
    for name in &names {
        assert!(one.put(&credential(name), &value(None)).await);
    }
    for name in &names {
        assert!(other.finds(&credential(name)).await.is_some());
    }
    // In all slots at once.
    let void = Changes::unnumbered(names.iter().map(|name| change(name)).collect());
    one.cache.invalidate(&void).await.unwrap();
    let heard = loop {
        if let Event::Message(message) = next(&mut events).await
            && message.publisher == one.cache.publisher()
            && let Body::Changes(changes) = message.body
        {
            break changes;
        }
    };
    assert_eq!(heard, void);
    for name in &names {
        assert!(other.finds(&credential(name)).await.is_none());
    }
    // They came in order, from many tasks.
    let all: Vec<_> = (0..200)
        .map(|sent| {
            let cache = one.cache.clone();
            tokio::spawn(async move { cache.publish(heartbeat(sent)).await.unwrap() })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    for one in all {
        numbers.insert(one.await.unwrap());
    }
    for number in numbers {
        let Event::Message(message) = next(&mut events).await else { panic!("no message") };
        assert_eq!(message.number, number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_primary_is_replaced_is_followed() {
    let mut cluster = RedisCluster::start_with_replicas();
    let store = store_of_the_first(&mut cluster);
    let clock = Arc::new(SystemClock::new());
    let replica = Replica::with(of_cluster(&cluster), KEY, &store, clock).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let names: Vec<_> = (0..60).map(|number| format!("token {number}")).collect();
    for name in &names {
        assert!(replica.put(&credential(name), &value(None)).await);
    }
    cluster.fail_over();
    recovers(&replica, &mut events).await;
    for name in &names {
        let key = credential(name);
        eventually("a look-up", async || replica.cache.get(&key).await.is_ok()).await;
        eventually("an invalidation", async || replica.cache.invalidate(&changed(name, None)).await.is_ok())
            .await;
        assert!(replica.finds(&key).await.is_none());
    }
    // The first that the URL names is not there any more.
    all_of_it(of_cluster(&cluster)).await;
}

/// An identity whose channel is carried by the first node, which will be killed.
fn store_of_the_first(cluster: &mut RedisCluster) -> Vec<u8> {
    let mut connection = cluster.node(0).connection();
    let mut is_first = |store: &Vec<u8>| {
        let keys = Keys::new(&Secret::new(KEY), store, PREFIX).unwrap();
        let mut asking = redis::cmd("CLUSTER");
        asking.arg("KEYSLOT").arg(&**keys.channel()).query::<u32>(&mut connection).unwrap() < 16_384 / 3
    };
    (0..100).map(|number| format!("store {number}").into_bytes()).find(|store| is_first(store)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_what_the_guide_says_are_enough() {
    let mut cluster = RedisCluster::start();
    for place in 0..3 {
        let mut connection = cluster.node(place).connection();
        let rules = rules().split(' ');
        redis::cmd("ACL")
            .arg(&["SETUSER", "someone", "on", ">secret"])
            .arg(rules.collect::<Vec<_>>())
            .exec(&mut connection)
            .unwrap();
    }
    let nodes = hosts(&cluster.urls());
    all_of_it(settings(&format!("url = \"redis+cluster://someone:secret@{nodes}\""))).await;
    let group = RedisSentinel::start();
    for url in group.urls() {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let rules = sentinel_rules().split(' ').collect::<Vec<_>>();
        redis::cmd("ACL")
            .arg(&["SETUSER", "someone", "on", ">secret", "-@all"])
            .arg(rules)
            .exec(&mut connection)
            .unwrap();
        redis::cmd("ACL").arg(&["SETUSER", "default", "off"]).exec(&mut connection).unwrap();
    }
    let url = format!("url = \"redis+sentinel://{}/{NAME}\"", hosts(&group.urls()));
    let login = "sentinel_user = \"someone\"\nsentinel_password = \"secret\"";
    all_of_it(settings(&format!("{url}\n{login}"))).await;
}

/// The slot of the channel goes elsewhere while somebody listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_slot_is_followed() {
    let mut cluster = RedisCluster::start();
    let replica = Replica::new(of_cluster(&cluster)).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    echoes(&replica, &mut events).await;
    let mut ids = Vec::new();
    for place in 0..3 {
        let id: String =
            redis::cmd("CLUSTER").arg("MYID").query(&mut cluster.node(place).connection()).unwrap();
        ids.push(id);
    }
    let slot: u32 = redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(&**keys().channel())
        .query(&mut cluster.node(0).connection())
        .unwrap();
    let owner = slot * 3 / 16_384;
    let heir = &ids[usize::try_from(owner + 1).unwrap() % 3];
    // The one that gets it first, then the one that gives it away.
    for place in [(owner + 1) % 3, owner, (owner + 2) % 3] {
        let mut connection = cluster.node(usize::try_from(place).unwrap()).connection();
        redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(heir).exec(&mut connection).unwrap();
    }
    recovers(&replica, &mut events).await;
}
