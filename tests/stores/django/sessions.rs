//! Django's sessions: read as Django reads them, and ended or renewed only after they were read again.

use super::{BACKEND, NOW, OLD_SECRET_KEY, Site, datetime, keys, old_keys};
use crate::suite::Done as _;
use doorward::clock::UnixSeconds;
use doorward::django::{Session, decode};
use doorward::identity::{Digest, UserId};
use doorward::secret::Secret;
use doorward::store::django::Django;
use doorward::store::session::{
    FoundSession, NewSession, Renewal, Renewed, SessionStore as _, UserSession, Visit,
};
use doorward::store::{StoreError, UserStore as _};
use std::collections::HashMap;

const KEY: &str = "sessionkeysessionkeysessionkey01";
const NEW: &str = "sessionkeysessionkeysessionkey02";
const WEEK: i64 = 7 * 86_400;

async fn find(store: &Django, key: &str) -> FoundSession {
    store.find_session(Secret::new(key), NOW).await.unwrap()
}

#[track_caller]
fn assert_of(found: &FoundSession, user: i64) {
    assert!(matches!(found, FoundSession::User(of) if of.user.id == UserId(user)), "{found:?}");
}

#[track_caller]
fn assert_nobodys(found: &FoundSession) {
    assert!(matches!(found, FoundSession::Nobody { .. }), "{found:?}");
}

async fn rows(site: &Site, key: &str) -> i64 {
    site.count(format!("SELECT count(*) FROM django_session WHERE session_key = '{key}'")).await
}

async fn content(site: &Site, key: &str) -> Session {
    let data =
        site.text(format!("SELECT session_data FROM django_session WHERE session_key = '{key}'")).await;
    decode(data.unwrap(), &keys()).unwrap()
}

#[tokio::test]
async fn session_finds_its_user_until_it_expires() {
    let site = Site::new();
    let store = site.open().await;
    let session = site.session_of(1, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    assert_of(&find(&store, KEY).await, 1);
    for other in ["SESSIONKEYSESSIONKEYSESSIONKEY01", "sessionkeysessionkeysessionkey0", "", "%"] {
        assert!(matches!(find(&store, other).await, FoundSession::Absent), "{other}");
    }
    for (ends, is_there) in [(NOW.0 + 1, true), (NOW.0, false), (NOW.0 - 1, false)] {
        site.run(format!(
            "UPDATE django_session SET expire_date = '{}' WHERE session_key = '{KEY}'",
            datetime(UnixSeconds(ends))
        ))
        .await;
        let found = find(&store, KEY).await;
        match found {
            FoundSession::User(of) if is_there => assert_eq!(of.expires.0, ends),
            FoundSession::Absent if !is_there => {}
            other => panic!("{ends}: {other:?}"),
        }
    }
    assert_eq!(rows(&site, KEY).await, 1, "an expired session is Django's to clear");
}

#[tokio::test]
async fn sessions_that_are_good_are_found_together() {
    let site = Site::new();
    let store = site.open().await;
    let mut keys_of = Vec::new();
    for (number, user) in [1, 2, 3, 1, 2].into_iter().enumerate() {
        let key = format!("sessionkeysessionkeysessionkey1{number}");
        let signed = if number == 4 { old_keys() } else { keys() };
        site.session(&key, &site.session_of(user, &signed).await, &signed).await;
        keys_of.push(key);
    }
    // Its end has come, and of another one the password is another.
    let end = datetime(NOW);
    site.run(format!("UPDATE django_session SET expire_date = '{end}' WHERE session_key = '{}'", keys_of[3]))
        .await;
    let mut void = Session::default();
    void.log_in("1", BACKEND, "x");
    site.session("void", &void, &keys()).await;
    site.row("garbage", "garbage", "2100-01-01 00:00:00").await;
    keys_of.extend(["void", "garbage", "nobody's", "", "VOID"].map(str::to_owned));
    let asked = keys_of.iter().map(|key| Secret::new(key.as_str())).collect();
    let found: HashMap<_, _> = store.find_sessions(asked, NOW).await.unwrap().into_iter().collect();
    let mut good = 0;
    for key in &keys_of {
        let together = found.get(&Digest::of(key.as_bytes())).map(Option::as_ref);
        let alone = find(&store, key).await;
        match (&alone, together) {
            (FoundSession::User(alone), Some(Some(together))) => {
                assert_eq!((&alone.user, alone.expires), (&together.user, together.expires), "{key}");
                good += 1;
            }
            (FoundSession::Absent, None) => {}
            // Somebody has to look more closely.
            (FoundSession::Void | FoundSession::Outdated(_) | FoundSession::Nobody { .. }, Some(None)) => {}
            _ => panic!("{key}: {alone:?}, {together:?}"),
        }
    }
    assert_eq!((good, found.len()), (3, 6));
    assert!(store.find_sessions(Vec::new(), NOW).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_nobodys_and_stays() {
    let site = Site::new();
    let store = site.open().await;
    let good = doorward::django::encode(&site.session_of(1, &keys()).await, &keys(), NOW.0);
    let mut tampered = good.clone().into_bytes();
    tampered[5] ^= 1;
    let others = doorward::django::Keys::new(&Secret::new("another key of another site, long enough"), &[]);
    let foreign = doorward::django::encode(&site.session_of(1, &others).await, &others, NOW.0);
    let data = [
        ("tampered", String::from_utf8(tampered).unwrap()),
        ("foreign", foreign),
        ("garbage", "garbage-not-signed".to_owned()),
        ("empty", String::new()),
        ("colons", "::::".to_owned()),
    ];
    for (name, data) in &data {
        let key = format!("session-{name}");
        site.row(&key, data, "2100-01-01 00:00:00").await;
        assert_nobodys(&find(&store, &key).await);
        assert_nobodys(&store.end_void(Secret::new(key.as_str()), NOW).await.done());
        assert_eq!(rows(&site, &key).await, 1, "{name}");
    }
    // Signed, but no JSON: of the fixture.
    assert_nobodys(&find(&store, "cda31fca073d53c5902e05ed2e6e32bb").await);
    if Site::IS_SQLITE {
        // An end that is no date.
        site.row("session-dateless", &good, "tomorrow").await;
        assert_nobodys(&find(&store, "session-dateless").await);
    }
}

#[tokio::test]
async fn whoever_may_not_log_in_is_nobody() {
    let site = Site::new();
    let store = site.open().await;
    let mut session = Session::default();
    session.log_in("1", "site.backends.Other", "x");
    site.session("session-of-another-backend", &session, &keys()).await;
    assert_nobodys(&find(&store, "session-of-another-backend").await);
    for user in ["9999", "-1", "one", "1.0", "99999999999999999999999", ""] {
        let mut session = Session::default();
        session.log_in(user, BACKEND, "x");
        let key = format!("session-of-{user}-x");
        site.session(&key, &session, &keys()).await;
        assert_nobodys(&find(&store, &key).await);
        assert_eq!(rows(&site, &key).await, 1);
    }
    let session = site.session_of(3, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    let found = find(&store, KEY).await;
    assert!(matches!(&found, FoundSession::User(of) if !of.user.is_active), "{found:?}");
}

#[tokio::test]
async fn a_changed_password_voids_and_only_what_is_void_still_is_ended() {
    let site = Site::new();
    let store = site.open().await;
    let session = site.session_of(1, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    site.session(NEW, &session, &keys()).await;
    let password = site.text("SELECT password FROM auth_user WHERE id = 1").await.unwrap();
    site.run("UPDATE auth_user SET password = 'pbkdf2_sha256$1$another' WHERE id = 1").await;
    assert!(matches!(find(&store, KEY).await, FoundSession::Void));
    assert_eq!(rows(&site, KEY).await, 1, "a look-up ends nothing");
    assert!(matches!(store.end_void(Secret::new(KEY), NOW).await.done(), FoundSession::Void));
    assert_eq!(rows(&site, KEY).await, 0);
    assert_eq!(rows(&site, NEW).await, 1);
    // Between the two looks somebody put the password back.
    assert!(matches!(find(&store, NEW).await, FoundSession::Void));
    site.run(format!("UPDATE auth_user SET password = '{password}' WHERE id = 1")).await;
    assert_of(&store.end_void(Secret::new(NEW), NOW).await.done(), 1);
    assert_eq!(rows(&site, NEW).await, 1);
    assert!(matches!(store.end_void(Secret::new(KEY), NOW).await.done(), FoundSession::Absent));
}

#[tokio::test]
async fn a_session_without_a_hash_is_void() {
    let site = Site::new();
    let store = site.open().await;
    let mut session = Session::default();
    session.log_in("1", BACKEND, "");
    site.session(KEY, &session, &keys()).await;
    assert!(matches!(find(&store, KEY).await, FoundSession::Void));
}

fn renewal(age_seconds: i64) -> Renewal {
    Renewal { key: Secret::new(KEY), new: Secret::new(NEW), now: NOW, age_seconds }
}

#[tokio::test]
async fn an_outdated_session_goes_on_under_another_key() {
    let site = Site::new();
    let store = site.open().await;
    let mut session = site.session_of(1, &old_keys()).await;
    session.set_csrf_secret("kept");
    site.session(KEY, &session, &old_keys()).await;
    assert!(matches!(find(&store, KEY).await, FoundSession::Outdated(_)));
    let renewed = store.renew(renewal(WEEK)).await.done();
    let Renewed::Renewed(UserSession { user, expires, csrf_secret, as_of: None }) = renewed else {
        panic!("{renewed:?}")
    };
    assert_eq!((user.id, expires), (UserId(1), UnixSeconds(NOW.0 + WEEK)));
    assert_eq!(csrf_secret, Some(Secret::new("kept")));
    assert_eq!((rows(&site, KEY).await, rows(&site, NEW).await), (0, 1));
    // Without the old key it is good now.
    assert_of(&find(&store, NEW).await, 1);
    assert_eq!(content(&site, NEW).await.csrf_secret(), Some(Secret::new("kept")));
    // Whoever comes second finds nothing, and writes nothing.
    let again = store.renew(Renewal { new: Secret::new("x".repeat(32)), ..renewal(WEEK) }).await.done();
    assert!(matches!(again, Renewed::Unchanged(FoundSession::Absent)), "{again:?}");
    assert_eq!(rows(&site, &"x".repeat(32)).await, 0);
}

#[tokio::test]
async fn a_session_that_is_not_outdated_any_more_is_not_renewed() {
    let site = Site::new();
    let store = site.open().await;
    let session = site.session_of(1, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    let renewed = store.renew(renewal(WEEK)).await.done();
    assert!(matches!(renewed, Renewed::Unchanged(FoundSession::User(_))), "{renewed:?}");
    assert_eq!((rows(&site, KEY).await, rows(&site, NEW).await), (1, 0));
}

#[tokio::test]
async fn a_renewed_session_ends_when_the_site_said() {
    // `request.session.set_expiry`: seconds, a moment, with the browser.
    for (expiry, ends) in
        [("300", NOW.0 + 300), ("\"2027-01-16T08:00:00+00:00\"", NOW.0 + 86_400), ("0", NOW.0 + WEEK)]
    {
        let site = Site::new();
        let store = site.open().await;
        let hash = site.session_of(1, &old_keys()).await.auth_hash().unwrap();
        let json = format!(
            r#"{{"_auth_user_id":"1","_auth_user_backend":"{BACKEND}","_auth_user_hash":"{hash}","_session_expiry":{expiry}}}"#
        );
        site.row(KEY, &super::signed(&json, OLD_SECRET_KEY), "2100-01-01 00:00:00").await;
        let renewed = store.renew(renewal(WEEK)).await.done();
        assert!(matches!(&renewed, Renewed::Renewed(of) if of.expires.0 == ends), "{expiry}: {renewed:?}");
        let stored =
            site.text(format!("SELECT expire_date FROM django_session WHERE session_key = '{NEW}'")).await;
        assert_eq!(stored.unwrap(), datetime(UnixSeconds(ends)), "{expiry}");
    }
}

async fn wish(store: &Django, user: &str, old: Option<&str>) -> NewSession {
    let user = store.find_user(user).await.unwrap().unwrap().user;
    NewSession {
        key: Secret::new(NEW),
        old: old.map(Secret::new),
        user: user.id,
        password_version: user.password_version,
        csrf_secret: None,
        now: NOW,
        expires: UnixSeconds(NOW.0 + WEEK),
    }
}

#[tokio::test]
async fn a_login_makes_a_session_that_django_reads() {
    let site = Site::new();
    let store = site.open().await;
    assert!(store.insert_session(wish(&store, "alice", None).await).await.done());
    let session = content(&site, NEW).await;
    let hash = keys().auth_hash(&site.text("SELECT password FROM auth_user WHERE id = 1").await.unwrap());
    assert_eq!(session.user_id().as_deref(), Some("1"));
    assert_eq!(session.backend().as_deref(), Some(BACKEND));
    assert_eq!(session.auth_hash(), Some(hash));
    let expires =
        site.text(format!("SELECT expire_date FROM django_session WHERE session_key = '{NEW}'")).await;
    assert_eq!(expires.unwrap(), datetime(UnixSeconds(NOW.0 + WEEK)));
    assert_eq!(site.text("SELECT last_login FROM auth_user WHERE id = 1").await.unwrap(), datetime(NOW));
    assert_of(&find(&store, NEW).await, 1);
}

#[tokio::test]
async fn what_a_visitor_left_in_a_session_goes_over() {
    let site = Site::new();
    let store = site.open().await;
    // {"cart":1}, of nobody: of the fixture.
    let old = "6c95716b012088e17ec8f4273218ccce";
    assert!(store.insert_session(wish(&store, "alice", Some(old)).await).await.done());
    assert_eq!(rows(&site, old).await, 0);
    assert!(format!("{:?}", content(&site, NEW).await).contains("cart"));
    assert_of(&find(&store, NEW).await, 1);
}

#[tokio::test]
async fn what_another_user_left_in_a_session_does_not() {
    let site = Site::new();
    let store = site.open().await;
    for (user, kept) in [(2, false), (1, true)] {
        let mut session = site.session_of(user, &keys()).await;
        session.set_csrf_secret("left");
        site.session(KEY, &session, &keys()).await;
        assert!(store.insert_session(wish(&store, "alice", Some(KEY)).await).await.done());
        assert_eq!(rows(&site, KEY).await, 0, "{user}");
        assert_eq!(content(&site, NEW).await.csrf_secret().is_some(), kept, "{user}");
        site.run(format!("DELETE FROM django_session WHERE session_key = '{NEW}'")).await;
    }
    // Nor what was left before the password was changed, nor what a user left whose backend is not ours.
    let mut session = Session::default();
    session.log_in("1", BACKEND, "hash of another password");
    session.set_csrf_secret("left");
    site.session(KEY, &session, &keys()).await;
    assert!(store.insert_session(wish(&store, "alice", Some(KEY)).await).await.done());
    assert!(content(&site, NEW).await.csrf_secret().is_none());
    site.run(format!("DELETE FROM django_session WHERE session_key = '{NEW}'")).await;
    let mut session = Session::default();
    session.log_in("2", "site.backends.Other", "x");
    session.set_csrf_secret("left");
    site.session(KEY, &session, &keys()).await;
    assert!(store.insert_session(wish(&store, "alice", Some(KEY)).await).await.done());
    assert!(content(&site, NEW).await.csrf_secret().is_none());
}

#[tokio::test]
async fn no_session_for_whoever_changed_since_the_password_was_checked() {
    for change in [
        "UPDATE auth_user SET is_active = FALSE",
        "UPDATE auth_user SET password = 'x'",
        "DELETE FROM auth_user",
    ] {
        let site = Site::new();
        let store = site.open().await;
        let session = site.session_of(2, &keys()).await;
        site.session(KEY, &session, &keys()).await;
        let wish = wish(&store, "alice", Some(KEY)).await;
        site.run(format!("{change} WHERE id = 1")).await;
        assert!(!store.insert_session(wish).await.done(), "{change}");
        assert_eq!((rows(&site, KEY).await, rows(&site, NEW).await), (1, 0), "{change}: nothing was done");
    }
}

#[tokio::test]
async fn a_key_that_is_taken_is_not_written_over() {
    let site = Site::new();
    let store = site.open().await;
    let session = site.session_of(2, &keys()).await;
    site.session(NEW, &session, &keys()).await;
    let refused = store.insert_session(wish(&store, "alice", None).await).await;
    assert!(matches!(refused, Err(StoreError::NotWritten(_) | StoreError::Conflict)), "{refused:?}");
    assert_of(&find(&store, NEW).await, 2);
    assert!(site.text("SELECT last_login FROM auth_user WHERE id = 1").await.is_none());
}

#[tokio::test]
async fn a_visitor_keeps_a_secret_in_a_session() {
    let site = Site::new();
    let store = site.open().await;
    let visit = |key: Option<&str>, secret: &str| Visit {
        key: key.map(Secret::new),
        new: Secret::new(NEW),
        csrf_secret: Secret::new(secret),
        now: NOW,
        expires: UnixSeconds(NOW.0 + WEEK),
    };
    assert_eq!(store.keep_csrf_secret(visit(None, "one")).await.done(), Secret::new(NEW));
    let found = find(&store, NEW).await;
    assert!(matches!(&found, FoundSession::Nobody { csrf_secret: Some(s) } if *s == Secret::new("one")));
    // Somebody's session stays his.
    let session = site.session_of(1, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    assert_eq!(store.keep_csrf_secret(visit(Some(KEY), "two")).await.done(), Secret::new(KEY));
    assert_of(&find(&store, KEY).await, 1);
    assert_eq!(content(&site, KEY).await.csrf_secret(), Some(Secret::new("two")));
}

#[tokio::test]
async fn a_session_is_deleted_once() {
    let site = Site::new();
    let store = site.open().await;
    let session = site.session_of(1, &keys()).await;
    site.session(KEY, &session, &keys()).await;
    assert!(store.delete_session(Secret::new(KEY)).await.done());
    assert!(!store.delete_session(Secret::new(KEY)).await.done());
    assert!(!store.delete_session(Secret::new(vec![0xff; 32])).await.done());
    assert!(matches!(find(&store, KEY).await, FoundSession::Absent));
}
