//! What every store does for commands.

use crate::suite::{Done as _, NOW, Open, digest, find, reported, token, user};
use doorward::clock::UnixSeconds;
use doorward::identity::{CredentialId, UserId};
use doorward::store::manage::{BatchToken, Group, Progress, TokenBatch, UserUpdate};
use doorward::store::{Change, NewToken, NewUser, Store, StoreError, TokenOrigin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) async fn user_is_updated_in_part(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    let staff = UserUpdate { is_staff: Some(true), ..UserUpdate::default() };
    assert!(store.update_user(alice, staff).await.done());
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    let found = find(&*store, "alice").await.unwrap();
    assert_eq!((found.is_staff, &*found.email), (true, "alice@example.com"));
    let email = UserUpdate { email: Some(String::new()), ..UserUpdate::default() };
    assert!(store.update_user(alice, email.clone()).await.done());
    let found = find(&*store, "alice").await.unwrap();
    assert_eq!((found.is_staff, &*found.email, found.is_active), (true, "", true));
    assert!(!store.update_user(UserId(7), email).await.done());
}

pub(crate) async fn users_are_listed_with_what_they_have(open: Open<'_>) {
    let store = open().await;
    let bob = store.insert_user(user("bob")).await.done();
    let groups = vec!["g".to_owned()];
    store.insert_user(NewUser { groups, created: UnixSeconds(NOW.0 + 1), ..user("alice") }).await.done();
    store.insert_token(token(1, bob)).await.done();
    store.insert_token(NewToken { expires: Some(UnixSeconds(0)), ..token(2, bob) }).await.done();
    let listed = store.list_users().await.unwrap();
    let shown: Vec<_> = listed.iter().map(|a| (&*a.user.username, a.created.0 - NOW.0, a.tokens)).collect();
    assert_eq!(shown, [("alice", 1, 0), ("bob", 0, 2)]);
    assert_eq!(store.count_tokens(bob).await.unwrap(), 2);
    assert_eq!(store.count_tokens(UserId(7)).await.unwrap(), 0);
}

pub(crate) async fn many_users_are_found_by_exact_name(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let odd = store.insert_user(user("\"a\\, \u{fc}")).await.done();
    let names = ["alice", "Alice", "alice ", "bob", "\"a\\, \u{fc}"].map(str::to_owned).to_vec();
    let mut found = store.user_ids(names).await.unwrap();
    found.sort();
    assert_eq!(found, [("\"a\\, \u{fc}".to_owned(), odd), ("alice".to_owned(), alice)]);
    assert_eq!(store.user_ids(vec![]).await.unwrap(), []);
}

pub(crate) async fn membership_changes_touch_no_other_group(open: Open<'_>) {
    let store = open().await;
    let groups = vec!["old".to_owned()];
    let alice = store.insert_user(NewUser { groups, ..user("alice") }).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    assert_eq!(store.join_group("new", vec![alice, bob, UserId(7)]).await.done(), [alice, bob]);
    assert_eq!(reported(&mut feed).await, [Change::User(alice), Change::User(bob)]);
    assert_eq!(store.join_group("new", vec![alice]).await.done(), [], "is in it");
    assert_eq!(reported(&mut feed).await, []);
    assert_eq!(*find(&*store, "alice").await.unwrap().groups, ["new", "old"].map(Box::from));
    let group = |name: &str, members: &[&str]| Group {
        name: name.to_owned(),
        members: members.iter().map(|&name| name.to_owned()).collect(),
    };
    let listed = store.list_groups().await.unwrap();
    assert_eq!(listed, [group("new", &["alice", "bob"]), group("old", &["alice"])]);
    assert_eq!(store.leave_group("new", vec![alice, UserId(7)]).await.done(), Some(vec![alice]));
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
    assert_eq!(store.leave_group("new", vec![alice]).await.done(), Some(vec![]), "is not in it");
    assert_eq!(store.leave_group("New", vec![alice]).await.done(), None);
    assert_eq!(*find(&*store, "alice").await.unwrap().groups, [Box::from("old")]);
    store.leave_group("old", vec![alice]).await.done();
    assert_eq!(
        store.list_groups().await.unwrap(),
        [group("new", &["bob"])],
        "without members it is no group"
    );
}

/// All ids, page by page; and how many pages there were.
async fn paged(store: &dyn Store, user: Option<UserId>, limit: u32) -> (Vec<u64>, usize) {
    let (mut ids, mut pages, mut place) = (Vec::new(), 0, None);
    loop {
        let page = store.page_tokens(user, place, limit).await.unwrap();
        ids.extend(page.tokens.iter().map(|token| token.id.0));
        pages += 1;
        place = page.next;
        if place.is_none() {
            return (ids, pages);
        }
    }
}

pub(crate) async fn tokens_are_paged_in_the_order_of_storing(open: Open<'_>) {
    let store = open().await;
    assert_eq!(paged(&*store, None, 2).await, (vec![], 1));
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    for (number, owner) in [(5, alice), (4, bob), (3, alice), (2, bob), (1, alice)] {
        store.insert_token(token(number, owner)).await.done();
    }
    assert_eq!(paged(&*store, None, 2).await, (vec![5, 4, 3, 2, 1], 3));
    assert_eq!(paged(&*store, Some(alice), 2).await, (vec![5, 3, 1], 2));
    let first = store.page_tokens(Some(bob), None, 1).await.unwrap();
    assert_eq!((first.tokens[0].username.as_str(), first.tokens[0].name.as_str()), ("bob", "token 4"));
    store.delete_token(CredentialId(4)).await.done();
    let second = store.page_tokens(Some(bob), first.next, 1).await.unwrap();
    assert_eq!(second.tokens[0].id.0, 2, "a deleted row moves no other");
}

pub(crate) async fn replaced_tokens_are_gone_and_nothing_is_lost_if_it_fails(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    for (number, owner) in [(1, alice), (2, alice), (3, bob)] {
        store.insert_token(token(number, owner)).await.done();
    }
    let mut feed = open().await.change_feed().await.unwrap();
    let taken = store.replace_tokens(NewToken { digest: digest(3), ..token(4, alice) }).await;
    assert!(matches!(taken, Err(StoreError::Conflict)), "{taken:?}");
    assert_eq!(paged(&*store, None, 9).await.0, [1, 2, 3]);
    assert_eq!(reported(&mut feed).await, []);
    let mut replaced = store.replace_tokens(token(4, alice)).await.done();
    replaced.sort();
    let mut expected = vec![digest(1), digest(2)];
    expected.sort();
    assert_eq!(replaced, expected);
    assert_eq!(reported(&mut feed).await.len(), 3, "two are void, one is new");
    assert_eq!(paged(&*store, None, 9).await.0, [3, 4]);
    let listed = store.list_tokens(Some(alice)).await.unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].created), ("token 4", NOW));
    assert_eq!(store.delete_tokens(alice).await.done(), [digest(4)]);
    assert_eq!(store.delete_tokens(alice).await.done(), []);
    assert_eq!(paged(&*store, None, 9).await.0, [3]);
}

fn batch(tokens: impl IntoIterator<Item = (u64, UserId)>) -> TokenBatch {
    let tokens = tokens.into_iter();
    let tokens =
        tokens.map(|(number, user)| BatchToken { id: CredentialId(number), digest: digest(number), user });
    TokenBatch { tokens: tokens.collect(), origin: TokenOrigin::Import, created: NOW, expires: Some(NOW) }
}

fn ignored() -> Progress {
    Arc::new(|_| ())
}

pub(crate) async fn batch_is_stored_whole_or_not_at_all(open: Open<'_>) {
    const COUNT: u64 = 1_001;
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(COUNT, alice)).await.done();
    let mut feed = open().await.change_feed().await.unwrap();
    let taken = store.insert_tokens(batch((1..=COUNT).map(|number| (number, alice))), ignored()).await;
    assert!(matches!(taken, Err(StoreError::Conflict)), "{taken:?}");
    let of_nobody = batch([(1, alice), (2, UserId(7))]);
    let of_nobody = store.insert_tokens(of_nobody, ignored()).await;
    assert!(matches!(of_nobody, Err(StoreError::NotWritten(_))), "{of_nobody:?}");
    assert_eq!(store.count_tokens(alice).await.unwrap(), 1);
    assert_eq!(reported(&mut feed).await, []);

    let told = Arc::new(AtomicUsize::new(0));
    let progress: Progress = {
        let told = Arc::clone(&told);
        Arc::new(move |written| told.store(written, Ordering::SeqCst))
    };
    store.insert_tokens(batch((1..COUNT).map(|number| (number, alice))), progress).await.done();
    assert_eq!(told.load(Ordering::SeqCst), 1_000);
    assert_eq!(reported(&mut feed).await.len(), 1_000);
    let expected: Vec<u64> = std::iter::once(COUNT).chain(1..COUNT).collect();
    assert_eq!(paged(&*store, None, 100).await.0, expected, "in the order of the batch");
    let found = open().await.find_token(digest(700)).await.unwrap().unwrap();
    assert_eq!((found.id, found.user.id, found.expires), (CredentialId(700), alice, Some(NOW)));
    let page = store.page_tokens(None, None, 2).await.unwrap();
    assert_eq!((page.tokens[1].origin, page.tokens[1].name.as_str()), (TokenOrigin::Import, ""));
    store.insert_tokens(batch([]), ignored()).await.done();
    store.insert_token(token(COUNT + 1, alice)).await.done();
}

pub(crate) async fn taken_digests_are_told(open: Open<'_>) {
    let store = open().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    store.insert_token(token(2, alice)).await.done();
    let asked = vec![digest(0), digest(2), digest(3)];
    assert_eq!(store.taken_digests(asked).await.unwrap(), [digest(2)]);
    assert_eq!(store.taken_digests(vec![]).await.unwrap(), []);
}
