//! Keys of DRF's `authtoken_token`.

use super::{NOW, Site, datetime};
use crate::suite::Done as _;
use doorward::identity::{Digest, UserId};
use doorward::secret::Secret;
use doorward::store::{CONFIRM_MAX, KeyRequest, KeyStore as _, UserStore as _};
use std::collections::HashMap;

const ALICE: &str = "a39990a3bb4dde2db07439908a3211415a63c790";

#[tokio::test]
async fn key_finds_its_user_exactly() {
    let store = Site::new();
    let store = store.open().await;
    for (key, name) in [
        (ALICE, Some("alice")),
        ("0eecb87a916b64d950eec75064ca83634c060d8f", Some("inactive_ivan")),
        ("short-token", Some("emptypw")),
        ("jeton-été-✓", Some("latin")),
        ("A39990A3BB4DDE2DB07439908A3211415A63C790", None),
        ("a39990a3bb4dde2db07439908a3211415a63c79", None),
        ("", None),
        ("a39990a3bb4dde2db07439908a3211415a63c790\0", None),
    ] {
        let found = store.find_key(Secret::new(key)).await.unwrap();
        assert_eq!(found.as_ref().map(|user| &*user.username), name, "{key:?}");
    }
    assert!(store.find_key(Secret::new(vec![0xff, 0xfe])).await.unwrap().is_none());
}

#[tokio::test]
async fn keys_are_found_together_as_each_alone() {
    let store = Site::new();
    let store = store.open().await;
    let keys = [
        ALICE,
        "0eecb87a916b64d950eec75064ca83634c060d8f",
        "A39990A3BB4DDE2DB07439908A3211415A63C790",
        "jeton-été-✓",
        "",
        "a39990a3bb4dde2db07439908a3211415a63c790\0",
        "nobody's",
    ];
    let asked = |keys: &[&str]| keys.iter().map(|key| Secret::new(*key)).collect::<Vec<_>>();
    let found: HashMap<_, _> = store.find_keys(asked(&keys)).await.unwrap().into_iter().collect();
    for key in keys {
        let alone = store.find_key(Secret::new(key)).await.unwrap();
        assert_eq!(found.get(&Digest::of(key.as_bytes())), alone.as_ref(), "{key:?}");
    }
    assert_eq!(found.len(), 3);
    assert_eq!(store.find_keys(asked(&[])).await.unwrap(), []);
    assert_eq!(store.find_keys(vec![Secret::new(vec![0xff])]).await.unwrap(), []);
    // As many as may be asked for.
    let mut many: Vec<_> = (1..CONFIRM_MAX).map(|number| Secret::new(format!("nobody's {number}"))).collect();
    many.push(Secret::new(ALICE));
    assert_eq!(store.find_keys(many).await.unwrap().len(), 1);
}

fn wish(user: i64, password_version: i64, new: &str) -> KeyRequest {
    KeyRequest { user: UserId(user), password_version, new: Secret::new(new), now: NOW }
}

#[tokio::test]
async fn the_key_that_is_there_is_given_again() {
    let site = Site::new();
    let store = site.open().await;
    let version = async |name| store.find_user(name).await.unwrap().unwrap().user.password_version;
    let (alice, bob) = (version("alice").await, version("bob").await);
    let obtain = async |wish| store.obtain_key(wish).await.done();
    assert_eq!(obtain(wish(1, alice, "new")).await.unwrap(), Secret::new(ALICE));
    assert_eq!(obtain(wish(2, bob, "bobs new key")).await.unwrap(), Secret::new("bobs new key"));
    assert_eq!(obtain(wish(2, bob, "another one")).await.unwrap(), Secret::new("bobs new key"));
    let row = site
        .text("SELECT created || ' ' || user_id FROM authtoken_token WHERE \"key\" = 'bobs new key'")
        .await;
    assert_eq!(row.unwrap(), format!("{} 2", datetime(NOW)));
    assert!(store.find_key(Secret::new("bobs new key")).await.unwrap().is_some());
    assert!(store.delete_key(Secret::new("bobs new key")).await.done());
    assert!(!store.delete_key(Secret::new("bobs new key")).await.done());
    assert!(store.find_key(Secret::new("bobs new key")).await.unwrap().is_none());
}

#[tokio::test]
async fn no_key_for_whoever_changed_since_the_password_was_checked() {
    for change in [
        "UPDATE auth_user SET is_active = FALSE",
        "UPDATE auth_user SET password = 'x'",
        "DELETE FROM auth_user",
    ] {
        let site = Site::new();
        let store = site.open().await;
        let bob = store.find_user("bob").await.unwrap().unwrap().user;
        site.run(format!("{change} WHERE id = 2")).await;
        assert!(store.obtain_key(wish(2, bob.password_version, "new")).await.done().is_none(), "{change}");
        assert!(store.find_key(Secret::new("new")).await.unwrap().is_none(), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_ask_at_once_get_one_key() {
    let site = Site::new();
    let first = std::sync::Arc::new(site.open().await);
    let second = std::sync::Arc::new(site.open().await);
    let bob = first.find_user("bob").await.unwrap().unwrap().user;
    let asking: Vec<_> = (0..20)
        .map(|number| {
            let store = std::sync::Arc::clone(if number % 2 == 0 { &first } else { &second });
            let wish = wish(2, bob.password_version, &format!("key {number}"));
            tokio::spawn(async move { store.obtain_key(wish).await })
        })
        .collect();
    let mut keys = Vec::new();
    for asked in asking {
        keys.push(asked.await.unwrap().done().unwrap().expose().to_vec());
    }
    keys.dedup();
    assert_eq!(keys.len(), 1);
    assert_eq!(site.count("SELECT count(*) FROM authtoken_token WHERE user_id = 2").await, 1);
}
