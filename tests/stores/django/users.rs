//! Users, groups, and tokens that doorward issues to them.

use super::{NOW, Site, run};
use crate::suite::{Done as _, canaries, digest, token};
use doorward::identity::UserId;
use doorward::secret::Secret;
use doorward::store::manage::{ManageTokens as _, ManageUsers as _};
use doorward::store::{
    CANARY_USER, Change, Grant, Granted, NewUser, Store as _, StoreError, TokenStore as _, UserStore as _,
};

#[tokio::test]
async fn user_is_read_as_django_wrote_it() {
    let site = Site::new();
    let store = site.open().await;
    let found = store.find_user("staff_sara").await.unwrap().unwrap();
    assert_eq!((found.user.id, &*found.user.username), (UserId(4), "staff_sara"));
    assert!(found.user.is_staff && found.user.is_active);
    assert!(found.password.expose().starts_with(b"pbkdf2_sha256$1000000$"));
    assert_eq!(store.user_by_id(UserId(4)).await.unwrap().unwrap(), found.user);
    assert_eq!(
        &*store.find_user("mail+tag@example.com").await.unwrap().unwrap().user.email,
        "mail+tag@example.com"
    );
    assert!(!store.find_user("inactive_ivan").await.unwrap().unwrap().user.is_active);
}

#[tokio::test]
async fn names_are_exact() {
    let store = Site::new();
    let store = store.open().await;
    for (name, id) in
        [("alice", Some(1)), ("Alice", Some(7)), ("ALICE", None), ("zoë", Some(8)), ("zoe\u{308}", None)]
    {
        let found = store.find_user(name).await.unwrap();
        assert_eq!(found.map(|found| found.user.id.0), id, "{name}");
    }
    for nobody in ["", " alice", "alice ", "ali%", "al\0ice", "' OR 1=1 --"] {
        assert!(store.find_user(nobody).await.unwrap().is_none(), "{nobody:?}");
    }
}

#[tokio::test]
async fn groups_are_read_and_listed_and_not_changed() {
    let site = Site::new();
    let mut django = site.django().await;
    run(&mut django, "INSERT INTO auth_group (id, name) VALUES (1, 'ops'), (2, 'a \"group\", née')").await;
    run(&mut django, "INSERT INTO auth_user_groups (user_id, group_id) VALUES (1, 1), (1, 2), (2, 1)").await;
    let store = site.open().await;
    let alice = store.find_user("alice").await.unwrap().unwrap().user;
    assert_eq!(alice.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["a \"group\", née", "ops"]);
    let groups = store.list_groups().await.unwrap();
    assert_eq!(groups[1].name, "ops");
    assert_eq!(groups[1].members, ["alice", "bob"]);
    assert!(matches!(store.join_group("ops", vec![UserId(3)]).await, Err(StoreError::Foreign(_))));
    assert!(matches!(store.set_groups(UserId(1), vec![]).await, Err(StoreError::Foreign(_))));
    assert!(matches!(store.delete_user(UserId(1)).await, Err(StoreError::Foreign(_))));
}

#[tokio::test]
async fn the_password_has_a_version_that_says_nothing_of_it() {
    let site = Site::new();
    let store = site.open().await;
    let version = async || store.find_user("alice").await.unwrap().unwrap().user.password_version;
    let before = version().await;
    assert_eq!(version().await, before);
    site.run("UPDATE auth_user SET password = password || 'x' WHERE id = 1").await;
    assert_ne!(version().await, before);
}

#[tokio::test]
async fn a_password_is_recoded_only_while_it_is_the_same() {
    let site = Site::new();
    let store = site.open().await;
    let old = store.find_user("alice").await.unwrap().unwrap().password;
    let other = Secret::new("pbkdf2_sha256$1$another");
    assert!(!store.recode_password(UserId(1), other.clone(), Secret::new("x")).await.done());
    assert!(store.recode_password(UserId(1), old.clone(), other.clone()).await.done());
    assert!(!store.recode_password(UserId(1), old, Secret::new("x")).await.done());
    assert_eq!(store.find_user("alice").await.unwrap().unwrap().password, other);
}

#[tokio::test]
async fn a_remote_user_is_made_as_django_makes_one() {
    let site = Site::new();
    let store = site.open().await;
    let new = |name: &str| NewUser {
        username: name.to_owned(),
        password: Secret::new("!unusable"),
        email: String::new(),
        is_staff: false,
        groups: vec![],
        created: NOW,
    };
    let id = store.insert_user(new("newcomer")).await.done();
    let as_django = format!(
        "FROM auth_user WHERE id = {} AND password = '!unusable' AND last_login IS NULL AND is_superuser = FALSE
            AND username = 'newcomer' AND last_name = '' AND email = '' AND is_staff = FALSE AND is_active = TRUE
            AND first_name = ''",
        id.0
    );
    assert_eq!(site.count(format!("SELECT count(*) {as_django}")).await, 1);
    let joined = site.text(format!("SELECT date_joined {as_django}")).await;
    assert_eq!(joined.unwrap(), "2027-01-15 08:00:00");
    assert_eq!(store.find_user("newcomer").await.unwrap().unwrap().user.id, id);
    assert!(matches!(store.insert_user(new("newcomer")).await, Err(StoreError::Conflict)));
}

#[tokio::test]
async fn own_token_finds_the_user_as_django_knows_it_now() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(1))).await.done();
    let found = async || store.find_token(digest(1)).await.unwrap().map(|found| found.user);
    assert_eq!(&*found().await.unwrap().username, "alice");
    site.run("UPDATE auth_user SET is_staff = TRUE, email = 'a@b.c' WHERE id = 1").await;
    let user = found().await.unwrap();
    assert_eq!((user.id, &*user.username, user.is_staff, &*user.email), (UserId(1), "alice", true, "a@b.c"));
    site.run("UPDATE auth_user SET is_active = FALSE WHERE id = 1").await;
    assert!(!found().await.unwrap().is_active);
    site.run("DELETE FROM auth_user WHERE id = 1").await;
    assert!(found().await.is_none(), "a user who is gone has no token");
    // Whoever opens the store anew finds the same.
    let other = site.open().await;
    assert!(other.find_token(digest(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn canaries_are_nobody_of_djangos_and_refused() {
    let site = Site::new();
    let store = site.open().await;
    let users = store.list_users().await.unwrap().len();
    store.insert_canaries(canaries(1..4, 5000)).await.done();
    let found = store.find_token(digest(2)).await.unwrap().unwrap();
    assert!(!found.user.is_active && found.user.id == CANARY_USER && found.as_of.is_none());
    assert_eq!(
        (store.list_tokens(None).await.unwrap().len(), store.list_users().await.unwrap().len()),
        (0, users)
    );
    let gone = store.delete_canaries([1, 2, 9].map(digest).to_vec()).await.unwrap();
    assert_eq!(
        (gone.value, gone.changes.changes),
        (2, [1, 2].map(|n| Change::Credential(digest(n))).to_vec())
    );
    assert!(store.find_token(digest(2)).await.unwrap().is_none());
    // Should Django have somebody under that number: a token of no name of theirs is nobody's.
    site.run("UPDATE auth_user SET id = -1 WHERE id = 1").await;
    assert!(store.find_token(digest(3)).await.unwrap().is_none());
}

/// Ids come back where rows are deleted, or another database is put in place.
#[tokio::test]
async fn a_token_is_void_once_its_user_has_another_name() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(2))).await.done();
    site.run("UPDATE auth_user SET username = 'mallory' WHERE id = 2").await;
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
    store.insert_token(token(2, UserId(2))).await.done();
    assert!(store.find_token(digest(1)).await.unwrap().is_none(), "and stays so");
    assert!(store.find_token(digest(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn all_tokens_of_a_user_are_the_key_of_drf_as_well() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(1))).await.done();
    assert_eq!(store.delete_tokens(UserId(1)).await.done().len(), 2);
    assert_eq!(store.delete_tokens(UserId(1)).await.done().len(), 0);
}

#[tokio::test]
async fn names_may_go_from_one_user_to_another() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(1))).await.done();
    store.insert_token(token(2, UserId(2))).await.done();
    site.run("UPDATE auth_user SET username = 'x' WHERE id = 1").await;
    site.run("UPDATE auth_user SET username = 'alice' WHERE id = 2").await;
    site.run("UPDATE auth_user SET username = 'bob' WHERE id = 1").await;
    store.insert_token(token(3, UserId(2))).await.done();
    store.insert_token(token(4, UserId(1))).await.done();
    for number in [1, 2] {
        let found = store.find_token(digest(number)).await.unwrap();
        assert!(found.is_none(), "under another name it may be somebody else: {number}");
    }
    for (number, id, name) in [(3, 2, "alice"), (4, 1, "bob")] {
        let user = store.find_token(digest(number)).await.unwrap().unwrap().user;
        assert_eq!((user.id.0, &*user.username), (id, name), "{number}");
    }
    let names: Vec<_> =
        store.list_tokens(None).await.unwrap().into_iter().map(|token| token.username).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(store.count_tokens(UserId(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn token_of_nobody_is_not_written() {
    let site = Site::new();
    let store = site.open().await;
    assert!(matches!(store.insert_token(token(1, UserId(9999))).await, Err(StoreError::NotWritten(_))));
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn grant_is_void_if_django_changed_the_user_since_the_password_was_checked() {
    for change in ["is_active = FALSE", "password = 'pbkdf2_sha256$1$changed'"] {
        let site = Site::new();
        let store = site.open().await;
        let alice = store.find_user("alice").await.unwrap().unwrap().user;
        let nobody_used_any = |_| None;
        let grant =
            Grant { password_version: alice.password_version, per_user: 2, last_use: &nobody_used_any };
        assert_eq!(
            store.grant_token(token(1, alice.id), grant).await.done(),
            Granted::Stored { revoked: vec![] }
        );
        site.run(format!("UPDATE auth_user SET {change} WHERE id = 1")).await;
        assert_eq!(store.grant_token(token(2, alice.id), grant).await.done(), Granted::Void, "{change}");
        assert!(store.find_token(digest(2)).await.unwrap().is_none());
    }
    let site = Site::new();
    let store = site.open().await;
    let alice = store.find_user("alice").await.unwrap().unwrap().user;
    let grant = Grant { password_version: alice.password_version, per_user: 2, last_use: &|_| None };
    site.run("DELETE FROM auth_user WHERE id = 1").await;
    assert_eq!(store.grant_token(token(1, alice.id), grant).await.done(), Granted::Void);
}

#[tokio::test]
async fn a_mirror_that_says_nothing_new_is_no_change() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(1))).await.done();
    let mut feed = store.change_feed().await.unwrap();
    feed.changes().await.unwrap();
    store.insert_token(token(2, UserId(1))).await.done();
    let told = feed.changes().await.unwrap().changes;
    // On the server there are others who write.
    let told: Vec<_> = told.into_iter().filter(|it| Site::IS_SQLITE || *it != Change::Something).collect();
    assert_eq!(told, [Change::Credential(digest(2))]);
}

#[tokio::test]
async fn accounts_are_listed_with_their_tokens() {
    let site = Site::new();
    let store = site.open().await;
    store.insert_token(token(1, UserId(1))).await.done();
    let accounts = store.list_users().await.unwrap();
    assert_eq!(accounts.len(), 47);
    let alice = accounts.iter().find(|account| &*account.user.username == "alice").unwrap();
    assert_eq!((alice.user.id, alice.tokens), (UserId(1), 2), "one of ours, and the key of DRF");
    assert!(alice.created.0 > 0, "when Django says");
    let ids = store.user_ids(vec!["bob".to_owned(), "nobody".to_owned()]).await.unwrap();
    assert_eq!(ids, [("bob".to_owned(), UserId(2))]);
}
