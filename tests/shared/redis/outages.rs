//! Redis away: nobody waits for it, it is not besieged, and it is found again.

use super::{Replica, changed, credential, eventually, settings, value, works};
use crate::services::redis::Redis;
use doorward::cache::redis::{Away, FAILURES_MAX, Settings};
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "this is about real time")]
fn now() -> Instant {
    Instant::now()
}

/// As a gateway waits.
fn quick(server: &Redis) -> Settings {
    Settings { timeout: Duration::from_millis(100), ..settings(server) }
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_a_few_times_only() {
    let server = Redis::start();
    let replica = Replica::new(quick(&server)).connected().await;
    server.pause();
    let began = now();
    let mut waited = 0;
    for number in 0..1_000 {
        let away = replica.cache.get(&credential(&number.to_string())).await.unwrap_err();
        waited += u32::from(!matches!(away, Away::Paused));
    }
    let took = began.elapsed();
    println!("1,000 look-ups while Redis hangs: {took:?}, {waited} of them waited");
    assert!(waited <= FAILURES_MAX, "{waited}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    server.resume();
    let began = now();
    works(&replica.cache).await;
    println!("SIGCONT to the first answer: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_is_gone_is_dialled_now_and_then() {
    let mut server = Redis::start();
    let replica = Replica::new(quick(&server)).connected().await;
    assert!(replica.put(&credential("token"), &value(None)).await);
    let before = replica.cache.state().dials;
    server.kill();
    let (began, mut asked, mut waited) = (now(), 0_u32, 0_u32);
    while began.elapsed() < Duration::from_secs(3) {
        for _ in 0..1_000 {
            asked += 1;
            let away = replica.cache.get(&credential("token")).await.unwrap_err();
            waited += u32::from(!matches!(away, Away::Paused));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let dials = replica.cache.state().dials - before;
    println!("{asked} look-ups in 3 s while Redis is gone: {waited} waited, {dials} connections were tried");
    assert!(waited <= FAILURES_MAX + 1, "{waited}");
    // 20, 40, 80, 160, 320 and then 500 ms, each up to a fifth longer.
    assert!((5..=12).contains(&dials), "{dials}");
    assert!(replica.cache.state().why.is_some());
    server.restart();
    let began = now();
    works(&replica.cache).await;
    println!("restart to the first answer: {:?}", began.elapsed());
    assert!(replica.finds(&credential("token")).await.is_none(), "it came back empty");
}

#[tokio::test]
async fn one_lost_connection_is_no_outage() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    assert!(replica.put(&key, &value(None)).await);
    for _ in 0..5 {
        redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes")
            .exec(&mut server.connection())
            .unwrap();
        eventually("an answer", async || replica.cache.get(&key).await.is_ok_and(|got| got.value.is_some()))
            .await;
        assert!(replica.cache.state().works);
    }
}

#[tokio::test]
async fn a_server_that_was_never_there_harms_nobody() {
    let mut server = Redis::start();
    server.kill();
    let replica = Replica::new(quick(&server));
    assert!(replica.cache.get(&credential("token")).await.is_err());
    assert!(replica.cache.invalidate(&changed("token", None)).await.is_err());
    server.restart();
    works(&replica.cache).await;
    replica.cache.invalidate(&changed("token", None)).await.unwrap();
}
