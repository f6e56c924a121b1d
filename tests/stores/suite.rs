//! What every store does.

use doorward::clock::UnixSeconds;
use doorward::identity::{CredentialId, Digest, User, UserId};
use doorward::secret::Secret;
use doorward::store::manage::{Account, BatchToken, TokenBatch};
use doorward::store::session::{FoundSession, NewSession};
use doorward::store::{
    CANARY_USER, Change, ChangeFeed, Changes, Grant, Granted, NewToken, NewUser, Sequence, Store, StoreError,
    StoreFuture, TokenOrigin, Written,
};
use std::ops::Range;
use std::pin::Pin;

/// Opens the database once more.
pub(crate) type Open<'a> = &'a (dyn Fn() -> Opening + Sync);
pub(crate) type Opening = Pin<Box<dyn Future<Output = Box<dyn Store>> + Send>>;

/// A moment before which nothing happens here (2001-09-09).
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_000_000_000);
/// A moment by which every row of the table of changes is old (2286-11-20).
const FAR: UnixSeconds = UnixSeconds(10_000_000_000);
const DAY: i64 = 86_400;

/// Makes a test of each claim, with the way to open given.
macro_rules! claims {
    ($database:ty, $suite:ident: $($claim:ident)*) => {$(
        #[tokio::test]
        async fn $claim() {
            let database = <$database>::new();
            $crate::$suite::$claim(&|| database.open()).await;
        }
    )*};
}
pub(crate) use claims;

/// What a write gave, where nobody caches anything.
pub(crate) trait Done<T> {
    fn done(self) -> T;
}

impl<T> Done<T> for Result<Written<T>, StoreError> {
    fn done(self) -> T {
        self.unwrap().value
    }
}

pub(crate) fn user(name: &str) -> NewUser {
    NewUser {
        username: name.to_owned(),
        password: Secret::new("$argon2id$1"),
        email: format!("{name}@example.com"),
        is_staff: false,
        groups: vec![],
        created: NOW,
    }
}

pub(crate) fn token(number: u64, user: UserId) -> NewToken {
    NewToken {
        id: CredentialId(number),
        digest: digest(number),
        user,
        name: format!("token {number}"),
        origin: TokenOrigin::Command,
        created: NOW,
        expires: None,
    }
}

pub(crate) fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

pub(crate) async fn find(store: &dyn Store, name: &str) -> Option<User> {
    store.find_user(name).await.unwrap().map(|found| found.user)
}

/// What the feed reports, in an order that does not depend on triggers.
pub(crate) async fn reported(feed: &mut Box<dyn ChangeFeed>) -> Vec<Change> {
    let mut changes = feed.changes().await.unwrap().changes;
    changes.sort_by_key(|change| match change {
        Change::Credential(digest) => (0, digest.0.to_vec()),
        Change::User(user) => (1, user.0.to_be_bytes().to_vec()),
        Change::Everything => (2, vec![]),
        Change::Something => (3, vec![]),
    });
    changes.dedup();
    changes
}

pub(crate) async fn absent_is_not_an_error(open: Open<'_>) {
    let store = open().await;
    let nobody = UserId(7);
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
    assert!(store.find_user("alice").await.unwrap().is_none());
    assert!(store.delete_token(CredentialId(1)).await.done().is_none());
    assert!(store.list_tokens(None).await.unwrap().is_empty());
    assert!(store.list_tokens(Some(nobody)).await.unwrap().is_empty());
    assert!(store.list_users().await.unwrap().is_empty());
    assert!(!store.set_active(nobody, false).await.done());
    assert!(!store.set_password(nobody, Secret::new("x")).await.done());
    assert!(!store.set_groups(nobody, vec!["staff".to_owned()]).await.done());
    assert!(!store.delete_user(nobody).await.done());
}

pub(crate) async fn names_are_exact(open: Open<'_>) {
    let store = open().await;
    // Letter case, trailing blank, and the two spellings of é are all differences.
    let names = ["alice", "Alice", "alice ", " alice", "\u{e9}", "e\u{301}", "", "%", "_lice"];
    for name in names {
        let id = store.insert_user(user(name)).await.done();
        assert_eq!(find(&*store, name).await.unwrap().id, id, "{name:?}");
    }
    for name in names {
        assert_eq!(&*find(&*store, name).await.unwrap().username, name);
    }
    for name in ["ALICE", "alice  ", "ali", "alice\0", "ali\0ce"] {
        assert!(find(&*store, name).await.is_none(), "{name:?}");
    }
    assert_eq!(store.list_users().await.unwrap().len(), names.len());
}

pub(crate) async fn names_may_hold_a_null_character(open: Open<'_>) {
    let store = open().await;
    for name in ["alice\0", "ali\0ce"] {
        let groups = vec![name.to_owned()];
        let id = store.insert_user(NewUser { groups, ..user(name) }).await.done();
        let found = find(&*store, name).await.unwrap();
        assert_eq!((found.id, &*found.groups[0]), (id, name));
    }
    assert!(find(&*store, "alice").await.is_none() && find(&*store, "alice\0\0").await.is_none());
}

pub(crate) async fn user_is_read_as_written(open: Open<'_>) {
    let store = open().await;
    let groups = ["b,c", "a", "\u{fc} \"\\", "", "a"].map(str::to_owned).to_vec();
    let id = store.insert_user(NewUser { is_staff: true, groups, ..user("alice") }).await.done();
    let found = open().await.find_user("alice").await.unwrap().unwrap();
    assert_eq!(found.password, Secret::new("$argon2id$1"));
    let expected = User {
        id,
        username: "alice".into(),
        is_active: true,
        is_staff: true,
        groups: ["", "a", "b,c", "\u{fc} \"\\"].map(Box::from).into(),
        email: "alice@example.com".into(),
        password_version: 0,
        not_before: 0,
    };
    assert_eq!(found.user, expected);
    assert_eq!(store.list_users().await.unwrap(), [Account { user: expected, created: NOW, tokens: 0 }]);
}

pub(crate) async fn user_is_changed_as_told(open: Open<'_>) {
    let store = open().await;
    let id = store.insert_user(user("alice")).await.done();
    let other = store.insert_user(user("bob")).await.done();
    assert!(store.set_active(id, false).await.done());
    assert!(store.set_password(id, Secret::new("$argon2id$2")).await.done());
    assert!(store.set_groups(id, vec!["x".to_owned(), "y".to_owned()]).await.done());
    assert!(store.set_groups(id, vec!["z".to_owned(), "y".to_owned()]).await.done());
    let found = store.find_user("alice").await.unwrap().unwrap();
    assert_eq!((found.user.is_active, found.user.password_version), (false, 1));
    assert_eq!(found.password, Secret::new("$argon2id$2"));
    assert_eq!(*found.user.groups, ["y", "z"].map(Box::from));
    let other = find(&*store, "bob").await.filter(|bob| bob.id == other).unwrap();
    assert_eq!((other.is_active, other.password_version, other.groups.len()), (true, 0, 0));
    assert!(store.set_active(id, true).await.done());
    assert!(find(&*store, "alice").await.unwrap().is_active);
}

pub(crate) async fn token_finds_its_user(open: Open<'_>) {
    let store = open().await;
    let id = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await.done();
    store.insert_user(user("bob")).await.done();
    let expires = Some(UnixSeconds(NOW.0 + 60));
    store.insert_token(NewToken { expires, ..token(u64::MAX, id) }).await.done();
    let found = open().await.find_token(digest(u64::MAX)).await.unwrap().unwrap();
    assert_eq!((found.id, found.created, found.expires), (CredentialId(u64::MAX), NOW, expires));
    assert_eq!(Some(found.user), find(&*store, "alice").await);
    assert!(store.find_token(digest(2)).await.unwrap().is_none());
    store.set_active(id, false).await.done();
    let found = store.find_token(digest(u64::MAX)).await.unwrap().unwrap();
    assert!(!found.user.is_active, "the store tells; it does not judge");
}

pub(crate) async fn user_has_many_named_tokens(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    let later = UnixSeconds(NOW.0 + 1);
    let obtained = NewToken { origin: TokenOrigin::Obtain, created: later, ..token(1, alice) };
    store.insert_token(obtained).await.done();
    store.insert_token(token(2, alice)).await.done();
    store.insert_token(NewToken { name: String::new(), ..token(3, bob) }).await.done();
    let of_alice = store.list_tokens(Some(alice)).await.unwrap();
    let names: Vec<_> = of_alice.iter().map(|token| (&*token.username, &*token.name)).collect();
    assert_eq!(names, [("alice", "token 2"), ("alice", "token 1")], "by creation");
    assert_eq!(of_alice[1].origin, TokenOrigin::Obtain);
    assert_eq!((of_alice[1].created, of_alice[1].last_used), (later, None));
    let all: Vec<_> = store.list_tokens(None).await.unwrap().iter().map(|token| token.id.0).collect();
    assert_eq!(all, [2, 3, 1]);
}

pub(crate) async fn deleted_token_is_gone(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    store.insert_token(token(2, alice)).await.done();
    assert_eq!(store.delete_token(CredentialId(1)).await.done(), Some(digest(1)));
    assert_eq!(store.delete_token(CredentialId(1)).await.done(), None);
    let other = open().await;
    assert!(other.find_token(digest(1)).await.unwrap().is_none());
    assert!(other.find_token(digest(2)).await.unwrap().is_some());
}

fn obtained(number: u64, user: UserId) -> NewToken {
    NewToken { origin: TokenOrigin::Obtain, ..token(number, user) }
}

/// A limit of three; nobody knows more of last uses than the store.
fn three() -> Grant<'static> {
    Grant { password_version: 0, per_user: 3, last_use: &|_| None }
}

fn revoked(numbers: &[u64]) -> Granted {
    Granted::Stored {
        revoked: numbers.iter().map(|number| (CredentialId(*number), digest(*number))).collect(),
    }
}

pub(crate) async fn granted_token_displaces_the_least_recently_used(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    let expires = Some(NOW);
    store.insert_token(NewToken { expires, ..obtained(100, alice) }).await.done();
    store.insert_token(token(101, alice)).await.done();
    store.insert_token(obtained(102, bob)).await.done();
    for number in 1..=3 {
        let granted = store.grant_token(obtained(number, alice), three()).await.done();
        assert_eq!(granted, revoked(&[]), "neither expired ones nor others' nor the command's count");
    }
    let mut feed = open().await.change_feed().await.unwrap();
    assert_eq!(store.grant_token(obtained(4, alice), three()).await.done(), revoked(&[1]), "the oldest");
    let changes = reported(&mut feed).await;
    assert!(
        changes.contains(&Change::Credential(digest(1))) && changes.contains(&Change::Credential(digest(4)))
    );
    // What was written counts, and what this process knows better counts more.
    let used = |seconds| UnixSeconds(NOW.0 + seconds);
    store.write_uses(vec![(CredentialId(2), used(5)), (CredentialId(3), used(7))]).await.unwrap();
    assert_eq!(store.grant_token(obtained(5, alice), three()).await.done(), revoked(&[4]));
    let last_use = |of: Digest| {
        let number = (1..10).find(|number| digest(*number) == of)?;
        (number != 3).then_some((used(9), 10 - number))
    };
    let grant = Grant { last_use: &last_use, ..three() };
    assert_eq!(store.grant_token(obtained(6, alice), grant).await.done(), revoked(&[3]));
    // Within one second the order decides: of 2, 5 and 6 the last has the lowest.
    assert_eq!(store.grant_token(obtained(7, alice), grant).await.done(), revoked(&[6]));
    let grant = Grant { per_user: 1, ..three() };
    let granted = store.grant_token(obtained(8, alice), grant).await.done();
    assert_eq!(granted, revoked(&[5, 7, 2]), "the limit was lowered");
    let left: Vec<_> = store.list_tokens(Some(alice)).await.unwrap().iter().map(|token| token.id.0).collect();
    assert_eq!(left, [100, 101, 8]);
    assert_eq!(store.list_tokens(Some(bob)).await.unwrap().len(), 1);
}

pub(crate) async fn grant_is_void_if_the_user_changed_since_the_password_was_checked(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    store.set_password(alice, Secret::new("$argon2id$2")).await.done();
    store.set_active(bob, false).await.done();
    for gone in [alice, bob, UserId(77)] {
        assert_eq!(store.grant_token(obtained(1, gone), three()).await.done(), Granted::Void);
    }
    let grant = Grant { password_version: 1, ..three() };
    assert_eq!(store.grant_token(obtained(1, alice), grant).await.done(), revoked(&[]));
    let taken = store.grant_token(obtained(1, alice), grant).await;
    assert!(matches!(taken, Err(StoreError::Conflict)));
    assert_eq!(store.list_tokens(None).await.unwrap().len(), 1);
}

pub(crate) async fn uses_are_written_and_void_nothing(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    for number in 0..1_050 {
        store.insert_token(token(number, alice)).await.done();
    }
    let mut feed = open().await.change_feed().await.unwrap();
    let uses = (0..1_051).map(|number| (CredentialId(number), UnixSeconds(NOW.0 + 60))).collect();
    store.write_uses(uses).await.unwrap();
    store.write_uses(vec![(CredentialId(7), NOW)]).await.unwrap();
    let again = |seconds| vec![(CredentialId(7), UnixSeconds(NOW.0 + seconds)), (CredentialId(8), NOW)];
    store.write_uses(again(119)).await.unwrap();
    let listed = store.list_tokens(None).await.unwrap();
    assert_eq!(listed.len(), 1_050, "one of them there never was");
    assert!(listed.iter().all(|token| token.last_used == Some(UnixSeconds(NOW.0 + 60))));
    store.write_uses(again(120)).await.unwrap();
    let last = store.list_tokens(None).await.unwrap()[7].last_used;
    assert_eq!(last, Some(UnixSeconds(NOW.0 + 120)), "written once a minute");
    assert_eq!(feed.changes().await.unwrap().changes, [], "no cache has to forget anything");
}

pub(crate) async fn taken_names_conflict(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    let again = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let same_digest = NewToken { id: CredentialId(2), ..token(1, alice) };
    assert!(matches!(store.insert_token(same_digest).await, Err(StoreError::Conflict)));
    let same_id = NewToken { digest: digest(2), ..token(1, alice) };
    assert!(matches!(store.insert_token(same_id).await, Err(StoreError::Conflict)));
    assert_eq!(feed.changes().await.unwrap().changes, [], "nothing was half done");
    assert_eq!(store.list_tokens(None).await.unwrap().len(), 1);
}

pub(crate) async fn token_of_nobody_is_not_written(open: Open<'_>) {
    let store = open().await;
    let refused = store.insert_token(token(1, UserId(7))).await;
    assert!(matches!(refused, Err(StoreError::NotWritten(_))), "{refused:?}");
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
}

pub(crate) async fn deleted_user_takes_the_tokens_along(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    for (number, owner) in [(1, alice), (2, alice), (3, bob)] {
        store.insert_token(token(number, owner)).await.done();
    }
    let mut feed = open().await.change_feed().await.unwrap();
    assert!(store.delete_user(alice).await.done());
    let mut gone = vec![Change::Credential(digest(1)), Change::Credential(digest(2))];
    gone.sort_by_key(|change| if let Change::Credential(digest) = change { digest.0 } else { [0; 32] });
    gone.push(Change::User(alice));
    assert_eq!(reported(&mut feed).await, gone);
    assert!(find(&*store, "alice").await.is_none());
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
    assert!(store.find_token(digest(3)).await.unwrap().is_some());
    assert_ne!(store.insert_user(user("alice")).await.done(), alice, "a key is never given out twice");
}

pub(crate) async fn feed_reports_each_kind_of_write(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    store.insert_token(token(1, bob)).await.done();
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(1))]);
    store.set_active(alice, false).await.done();
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    store.set_password(alice, Secret::new("$argon2id$2")).await.done();
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    store.set_groups(alice, vec!["g".to_owned(), "h".to_owned()]).await.done();
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    store.set_groups(alice, vec![]).await.done();
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    store.delete_token(CredentialId(1)).await.done();
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(1))]);
    store.delete_user(alice).await.done();
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    assert_eq!(reported(&mut feed).await, []);
}

pub(crate) async fn feed_starts_where_it_was_opened(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut own = store.change_feed().await.unwrap();
    let mut others = open().await.change_feed().await.unwrap();
    assert_eq!(reported(&mut own).await, []);
    store.insert_token(token(2, alice)).await.done();
    assert_eq!(reported(&mut own).await, [Change::Credential(digest(2))], "one's own writes as well");
    assert_eq!(reported(&mut others).await, [Change::Credential(digest(2))], "unread before the first write");
}

pub(crate) async fn writes_that_find_nothing_are_silent(open: Open<'_>) {
    let store = open().await;
    let mut feed = open().await.change_feed().await.unwrap();
    store.delete_token(CredentialId(1)).await.done();
    store.set_active(UserId(7), true).await.done();
    store.set_groups(UserId(7), vec!["g".to_owned()]).await.done();
    store.delete_user(UserId(7)).await.done();
    assert_eq!(feed.changes().await.unwrap().changes, []);
}

pub(crate) async fn lagging_feed_believes_nothing_after_a_prune(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut lagging = open().await.change_feed().await.unwrap();
    let mut current = open().await.change_feed().await.unwrap();
    for number in 1..=3 {
        store.insert_token(token(number, alice)).await.done();
    }
    assert_eq!(reported(&mut current).await.len(), 3);
    store.prune(FAR).await.unwrap();
    assert_eq!(reported(&mut lagging).await, [Change::Everything]);
    assert_eq!(reported(&mut current).await, [], "nothing was lost by who had read");
    let mut fresh = open().await.change_feed().await.unwrap();
    store.insert_token(token(4, alice)).await.done();
    for feed in [&mut lagging, &mut current, &mut fresh] {
        assert_eq!(reported(feed).await, [Change::Credential(digest(4))]);
    }
}

pub(crate) async fn prune_keeps_what_feeds_may_not_have_read(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    store.insert_token(token(1, alice)).await.done();
    store.insert_token(token(2, alice)).await.done();
    // The rows were made now; by this clock they are of the future.
    store.prune(NOW).await.unwrap();
    assert_eq!(
        feed.changes().await.unwrap().changes,
        [Change::Credential(digest(1)), Change::Credential(digest(2))]
    );
}

pub(crate) async fn prune_deletes_tokens_long_expired(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let moments = [None, Some(NOW.0 + DAY), Some(NOW.0 - 29 * DAY), Some(NOW.0 - 31 * DAY)];
    for (number, expires) in (1..).zip(moments) {
        let expires = expires.map(UnixSeconds);
        store.insert_token(NewToken { expires, ..token(number, alice) }).await.done();
    }
    let mut feed = open().await.change_feed().await.unwrap();
    store.prune(NOW).await.unwrap();
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(4))]);
    let left: Vec<_> = store.list_tokens(None).await.unwrap().iter().map(|token| token.id.0).collect();
    assert_eq!(left, [1, 2, 3]);
}

pub(crate) async fn too_many_changes_are_everything(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    let groups: Vec<_> = (0..10_001).map(|number| format!("group {number}")).collect();
    store.set_groups(alice, groups).await.done();
    assert_eq!(feed.changes().await.unwrap().changes, [Change::Everything]);
    store.insert_token(token(1, alice)).await.done();
    assert_eq!(
        feed.changes().await.unwrap().changes,
        [Change::Credential(digest(1))],
        "and it goes on after them"
    );
}

/// What a feed says, in its order and with its numbers.
async fn fed(feed: &mut Box<dyn ChangeFeed>) -> Changes {
    feed.changes().await.unwrap()
}

pub(crate) async fn writes_tell_what_the_feed_tells(open: Open<'_>) {
    let store = open().await;
    let mut feed = open().await.change_feed().await.unwrap();
    let last = fed(&mut feed).await.last.unwrap();
    let groups = ["g", "h"].map(str::to_owned).to_vec();
    let made = store.insert_user(NewUser { groups: groups.clone(), ..user("alice") }).await.unwrap();
    assert_eq!(made.changes, fed(&mut feed).await);
    let (alice, mut last) = (made.value, made.changes.last.filter(|made| *made > last).unwrap());
    // One after the other: a future that nobody polls does nothing.
    let written: [StoreFuture<'_, Changes>; 8] = [
        changes(store.insert_token(token(1, alice))),
        changes(store.set_groups(alice, vec!["h".to_owned()])),
        changes(store.replace_tokens(token(2, alice))),
        changes(store.grant_token(obtained(3, alice), three())),
        changes(store.set_password(alice, Secret::new("$argon2id$2"))),
        changes(store.join_group("g", vec![alice])),
        changes(store.delete_tokens(alice)),
        changes(store.delete_user(alice)),
    ];
    for (number, written) in written.into_iter().enumerate() {
        let told = written.await.unwrap();
        assert_eq!(told.first, Some(Sequence(last.0 + 1)), "{number}: no gap");
        assert_eq!(told.last.unwrap().0, last.0 + told.changes.len() as u64, "{number}");
        assert_eq!(told, fed(&mut feed).await, "{number}: the same as others hear");
        last = told.last.unwrap();
    }
    let silent = store.delete_token(CredentialId(1)).await.unwrap().changes;
    assert!(silent.is_empty() && silent.first.is_none());
    assert_eq!(fed(&mut feed).await, Changes { last: Some(last), ..Changes::none() });
}

fn changes<'a, T: 'a>(write: StoreFuture<'a, Written<T>>) -> StoreFuture<'a, Changes> {
    Box::pin(async { Ok(write.await?.changes) })
}

pub(crate) async fn large_write_says_that_everything_changed(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.unwrap();
    let before = alice.changes.last;
    let groups = |count| (0..count).map(|number| format!("group {number}")).collect();
    let told = store.set_groups(alice.value, groups(1000)).await.unwrap().changes;
    assert_eq!(told.changes.len(), 1000);
    let last = told.last.unwrap();
    let mut feed = open().await.change_feed().await.unwrap();
    let told = store.set_groups(alice.value, groups(1001)).await.unwrap().changes;
    assert_eq!((&*told.changes, told.first), (&[Change::Everything][..], Some(Sequence(last.0 + 1))));
    assert_eq!(fed(&mut feed).await.last, told.last);
    assert!(before < told.last);
}

pub(crate) async fn answers_say_as_of_which_change_they_hold(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await.unwrap();
    assert_eq!(store.find_user("alice").await.unwrap().unwrap().as_of, alice.changes.last);
    let made = store.insert_token(token(1, alice.value)).await.unwrap().changes;
    assert!(made.last > alice.changes.last);
    let other = open().await;
    assert_eq!(other.find_token(digest(1)).await.unwrap().unwrap().as_of, made.last);
    let made = store.insert_token(token(2, alice.value)).await.unwrap().changes;
    assert_eq!(other.find_token(digest(1)).await.unwrap().unwrap().as_of, made.last);
    let session = NewSession {
        key: Secret::new("a session"),
        old: None,
        user: alice.value,
        password_version: 0,
        csrf_secret: None,
        now: NOW,
        expires: FAR,
    };
    assert!(store.insert_session(session).await.done());
    match other.find_session(Secret::new("a session"), NOW).await.unwrap() {
        FoundSession::User(found) => assert_eq!(found.as_of, made.last),
        found => panic!("{found:?}"),
    }
}

pub(crate) async fn history_is_what_was_not_pruned(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.unwrap();
    let start = alice.changes.last.unwrap_or_default();
    for number in 1..=3 {
        store.insert_token(token(number, alice.value)).await.done();
    }
    let history = open().await.history().await.unwrap().unwrap();
    let skipped = usize::try_from(start.0 - history.after.0).unwrap();
    let told = [1, 2, 3].map(|number| Change::Credential(digest(number)));
    assert_eq!(history.changes[skipped..], told);
    store.prune(FAR).await.unwrap();
    let pruned = store.history().await.unwrap().unwrap();
    assert_eq!(pruned.after.0 + pruned.changes.len() as u64, start.0 + 3, "it is known how far it goes");
    assert!(pruned.changes.len() <= 1);
}

pub(crate) async fn canary_is_refused_and_listed_nowhere(open: Open<'_>) {
    let store = open().await;
    for number in 1..=2 {
        store.insert_canary(token(number, UserId(7))).await.done();
        let found = store.find_token(digest(number)).await.unwrap().unwrap();
        assert!(!found.user.is_active && found.user.id == CANARY_USER);
    }
    assert!(store.list_tokens(None).await.unwrap().is_empty());
    assert!(store.list_users().await.unwrap().is_empty());
    let gone = store.delete_token(CredentialId(1)).await.unwrap();
    assert_eq!((gone.value, gone.changes.changes), (Some(digest(1)), vec![Change::Credential(digest(1))]));
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
}

/// Of whom they say they are makes no difference.
pub(crate) fn canaries(numbers: Range<u64>, expires: i64) -> TokenBatch {
    let tokens = numbers.map(|number| BatchToken {
        id: CredentialId(number),
        digest: digest(number),
        user: UserId(7),
    });
    let (origin, created) = (TokenOrigin::Canary, UnixSeconds(1));
    TokenBatch { tokens: tokens.collect(), origin, created, expires: Some(UnixSeconds(expires)) }
}

pub(crate) async fn many_canaries_are_deleted_or_pruned_and_nothing_else_is(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.unwrap().value;
    store.insert_token(token(1, alice)).await.done();
    store.insert_canaries(canaries(2..702, 1000)).await.done();
    let found = store.find_token(digest(701)).await.unwrap().unwrap();
    assert!(!found.user.is_active && found.user.id == CANARY_USER);
    let listed: Vec<CredentialId> =
        store.list_tokens(None).await.unwrap().iter().map(|token| token.id).collect();
    assert_eq!(listed, [CredentialId(1)]);
    // Another user's token is none of them, and who is not there is not counted.
    let gone = store.delete_canaries([1, 2, 3, 9999].map(digest).to_vec()).await.unwrap();
    assert_eq!(
        (gone.value, gone.changes.changes),
        (2, [2, 3].map(|n| Change::Credential(digest(n))).to_vec())
    );
    let all: Vec<Digest> = (1..600).map(digest).collect();
    assert_eq!(store.delete_canaries(all).await.unwrap().value, 596);
    store.insert_canaries(canaries(2..4, 5000)).await.done();
    // Those of a process that ended without.
    store.prune(UnixSeconds(1000 + 600)).await.unwrap();
    assert!(store.find_token(digest(701)).await.unwrap().is_some(), "it may still be needed");
    store.prune(UnixSeconds(1000 + 601)).await.unwrap();
    let mut left = Vec::new();
    for number in [1, 2, 3, 600, 701] {
        left.extend(store.find_token(digest(number)).await.unwrap().map(|_| number));
    }
    assert_eq!(left, [1, 2, 3]);
}
