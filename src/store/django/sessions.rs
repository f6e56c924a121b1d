//! Django's sessions (Django 5.2, `contrib.sessions.backends.db` and `contrib.auth`).

use crate::clock::UnixSeconds;
use crate::django::{self, Match, Session, SessionExpiry};
use crate::identity::{Digest, UserId};
use crate::secret::Secret;
use crate::store::django::Django;
use crate::store::django::statements::{DELETE_SESSION, FIND_SESSION, INSERT_SESSION, LOCK_SESSION};
use crate::store::session::{FoundSession, NewSession, Renewal, Renewed, SessionStore, UserSession, Visit};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::{Link, Row, values};
use crate::store::{Change, StoreError, StoreFuture, UserWithPassword, Written};

/// A moment as Django writes it to SQLite: text in UTC, compared as text.
pub(super) fn datetime(moment: UnixSeconds) -> String {
    django::format_datetime(moment.0, 0)
}

/// A session as it was read, and what it leads to.
struct Read {
    /// What is in it. `None`: it cannot be read, or there is none.
    session: Option<Session>,
    found: FoundSession,
}

/// What is in a session's row.
pub(super) struct Content {
    session: Session,
    /// Whom it names, if that is ours to say.
    pub(super) user: Option<UserId>,
    expires: UnixSeconds,
}

impl Read {
    fn absent() -> Self {
        Self { session: None, found: FoundSession::Absent }
    }

    fn nobody(session: Option<Session>) -> Self {
        let csrf_secret = session.as_ref().and_then(Session::csrf_secret);
        Self { session, found: FoundSession::Nobody { csrf_secret } }
    }
}

impl Django {
    /// A session's key as text. `None`: no row has it.
    fn key<'a>(&self, key: &'a Secret) -> Option<&'a str> {
        text(key).filter(|key| self.database.can_hold(key))
    }

    /// Reads a session and its user, both in the caller's transaction. `contrib.auth.get_user`, up to what it would
    /// write; if the caller writes, nobody else changes session and user until its transaction ends.
    async fn read_session(
        &self,
        link: &mut Link,
        key: &str,
        now: UnixSeconds,
        writes: bool,
    ) -> sqlx::Result<Read> {
        let statement = if writes { LOCK_SESSION } else { FIND_SESSION };
        let Some(row) = link.one(statement, values![key, datetime(now)]).await? else {
            return Ok(Read::absent());
        };
        if row.text("session_key")? != key {
            return Ok(Read::absent());
        }
        let Some(content) = self.content(&row)? else { return Ok(Read::nobody(None)) };
        let Some(user) = content.user else { return Ok(Read::nobody(Some(content.session))) };
        let Some(user) = self.read_user(link, user, writes).await? else {
            return Ok(Read::nobody(Some(content.session)));
        };
        let found = self.judge(&content, user);
        Ok(Read { session: Some(content.session), found })
    }

    /// What is in a row. `None`: it cannot be read.
    pub(super) fn content(&self, row: &Row) -> sqlx::Result<Option<Content>> {
        let expires = django::parse_datetime(&row.text("expire_date")?);
        let session = django::decode(&row.text("session_data")?, &self.settings.keys);
        let Some(((expires, _), session)) = expires.zip(session) else { return Ok(None) };
        let is_ours = session.backend().is_some_and(|backend| self.settings.backends.contains(&backend));
        let user = session.user_id().and_then(|id| id.parse().ok()).filter(|_| is_ours);
        Ok(Some(Content { session, user: user.map(UserId), expires: UnixSeconds(expires) }))
    }

    /// What a session leads to, by its user as of the same moment.
    pub(super) fn judge(&self, content: &Content, user: UserWithPassword) -> FoundSession {
        let Content { session, expires, .. } = content;
        let hash = session.auth_hash().unwrap_or_default();
        let password = String::from_utf8_lossy(user.password.expose());
        let matches = self.settings.keys.matches(&hash, &password);
        let facts = UserSession {
            user: user.user,
            expires: *expires,
            csrf_secret: session.csrf_secret(),
            as_of: None,
        };
        match matches {
            // An inactive user is nobody before anybody looks at the hash.
            _ if !facts.user.is_active => FoundSession::User(facts),
            Match::Current => FoundSession::User(facts),
            Match::Fallback => FoundSession::Outdated(facts),
            Match::No => FoundSession::Void,
        }
    }

    async fn write_session(
        &self,
        link: &mut Link,
        key: &str,
        session: &Session,
        now: UnixSeconds,
        expires: UnixSeconds,
    ) -> Result<(), StoreError> {
        let data = django::encode(session, &self.settings.keys, now.0);
        let values = values![key, data, datetime(expires)];
        link.run(INSERT_SESSION, values).await.map(drop).map_err(not_written)
    }
}

/// When a session that is written now ends: as it says itself, if the site made it say so (`SessionBase.get_expiry_date`).
fn end(session: &Session, now: UnixSeconds, usual: UnixSeconds) -> UnixSeconds {
    match session.expiry() {
        SessionExpiry::At(moment) => UnixSeconds(moment),
        SessionExpiry::Seconds(age) => UnixSeconds(now.0.saturating_add(age)),
        SessionExpiry::Default | SessionExpiry::BrowserClose => usual,
    }
}

async fn delete(link: &mut Link, key: &str) -> Result<bool, StoreError> {
    Ok(link.run(DELETE_SESSION, values![key]).await.map_err(not_written)? > 0)
}

/// What is text. `None`: it is none.
fn text(key: &Secret) -> Option<&str> {
    std::str::from_utf8(key.expose()).ok()
}

/// What is cached under this key is void.
fn change(key: &Secret) -> Change {
    Change::Credential(Digest::of(key.expose()))
}

fn not_text() -> StoreError {
    StoreError::Foreign("a session whose key is no text")
}

impl SessionStore for Django {
    fn find_session(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, FoundSession> {
        Box::pin(self.database.bounded(async move {
            // No route asks for sessions, so nobody looked whether there is the table.
            let key = self.key(&key).filter(|_| self.settings.needs_sessions);
            let Some(key) = key else { return Ok(FoundSession::Absent) };
            let mut link = self.database.snapshot().await.map_err(unavailable)?;
            let read = self.read_session(&mut link, key, now, false).await.map_err(unavailable)?;
            Ok(read.found)
        }))
    }

    fn find_sessions(
        &self,
        keys: Vec<Secret>,
        now: UnixSeconds,
    ) -> StoreFuture<'_, Vec<(Digest, Option<UserSession>)>> {
        Box::pin(self.sessions_together(keys, now))
    }

    /// `contrib.auth.login`: the old session's content goes over unless it was somebody else's.
    fn insert_session(&self, new: NewSession) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.database.begin().await?;
            if let Some(old) = new.old.as_ref().and_then(|old| self.key(old)) {
                // Whoever locks both, locks the session first.
                write.one(LOCK_SESSION, values![old, datetime(new.now)]).await.map_err(not_written)?;
            }
            let user = self.unchanged(&mut write, new.user, new.password_version, true).await;
            let user = user.map_err(not_written)?;
            let Some(user) = user else { return Ok(Written::nothing(false)) };
            let mut session = Session::default();
            if let Some(old) = new.old.as_ref().and_then(|old| self.key(old)) {
                let read = self.read_session(&mut write, old, new.now, true).await.map_err(not_written)?;
                let is_others = match &read.found {
                    FoundSession::User(of) => of.user.id != new.user,
                    // Not signed with today's key: Django does not trust what is in it any more.
                    FoundSession::Void | FoundSession::Outdated(_) => true,
                    FoundSession::Absent | FoundSession::Nobody { .. } => false,
                };
                let names_another = read
                    .session
                    .as_ref()
                    .and_then(Session::user_id)
                    .is_some_and(|id| id != new.user.0.to_string());
                session = read.session.filter(|_| !is_others && !names_another).unwrap_or_default();
                delete(&mut write, old).await?;
            }
            let password = String::from_utf8_lossy(user.password.expose());
            let backend = self.settings.backends.first().map(String::as_str).unwrap_or_default();
            session.log_in(&new.user.0.to_string(), backend, &self.settings.keys.auth_hash(&password));
            if let Some(secret) = new.csrf_secret.as_ref().and_then(text) {
                session.set_csrf_secret(secret);
            }
            let key = text(&new.key).ok_or_else(not_text)?;
            let expires = end(&session, new.now, new.expires);
            self.write_session(&mut write, key, &session, new.now, expires).await?;
            if let Some(statement) = &self.statements.logged_in {
                write.run(statement, values![new.user.0, datetime(new.now)]).await.map_err(not_written)?;
            }
            write.commit().await?;
            Ok(Written::unnumbered(true, new.old.iter().map(change).collect()))
        })
    }

    fn keep_csrf_secret(&self, visit: Visit) -> StoreFuture<'_, Written<Secret>> {
        Box::pin(async move {
            let mut write = self.database.begin().await?;
            let secret = text(&visit.csrf_secret).ok_or_else(not_text)?;
            let mut key = visit.new.clone();
            let mut session = Session::default();
            if let Some((old, held)) = visit.key.as_ref().and_then(|held| Some((self.key(held)?, held))) {
                let read = self.read_session(&mut write, old, visit.now, true).await.map_err(not_written)?;
                // A session that cannot be read is not ours to replace.
                if let Some(read) = read.session {
                    (session, key) = (read, held.clone());
                    delete(&mut write, old).await?;
                }
            }
            session.set_csrf_secret(secret);
            let name = text(&key).ok_or_else(not_text)?;
            let expires = end(&session, visit.now, visit.expires);
            self.write_session(&mut write, name, &session, visit.now, expires).await?;
            write.commit().await?;
            Ok(Written::unnumbered(key, visit.key.iter().map(change).collect()))
        })
    }

    fn delete_session(&self, key: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let gone = change(&key);
            let Some(key) = self.key(&key) else { return Ok(Written::nothing(false)) };
            let mut write = self.database.begin().await?;
            let deleted = delete(&mut write, key).await?;
            write.commit().await?;
            Ok(Written::unnumbered(deleted, vec![gone]))
        })
    }

    fn end_void(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, Written<FoundSession>> {
        Box::pin(async move {
            let gone = change(&key);
            let Some(key) = self.key(&key) else { return Ok(Written::nothing(FoundSession::Absent)) };
            let mut write = self.database.begin().await?;
            let found = self.read_session(&mut write, key, now, true).await.map_err(not_written)?.found;
            if !matches!(found, FoundSession::Void) {
                return Ok(Written::nothing(found));
            }
            delete(&mut write, key).await?;
            write.commit().await?;
            Ok(Written::unnumbered(found, vec![gone]))
        })
    }

    /// `contrib.auth.get_user` where the hash is that of a fallback key: `cycle_key`, and the hash anew.
    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Written<Renewed>> {
        Box::pin(async move {
            let Renewal { key, new, now, age_seconds } = renewal;
            let (Some(old), Some(new)) = (self.key(&key), text(&new)) else { return Err(not_text()) };
            let mut write = self.database.begin().await?;
            let Read { session, found } =
                self.read_session(&mut write, old, now, true).await.map_err(not_written)?;
            let (Some(mut session), FoundSession::Outdated(_)) = (session, &found) else {
                return Ok(Written::nothing(Renewed::Unchanged(found)));
            };
            let user = session.user_id().and_then(|id| id.parse().ok());
            let user = match user {
                Some(id) => self.read_user(&mut write, UserId(id), true).await.map_err(not_written)?,
                None => None,
            };
            let Some(user) = user else {
                return Ok(Written::nothing(Renewed::Unchanged(FoundSession::Absent)));
            };
            let password = String::from_utf8_lossy(user.password.expose());
            session.set_auth_hash(&self.settings.keys.auth_hash(&password));
            let expires = end(&session, now, UnixSeconds(now.0.saturating_add(age_seconds)));
            self.write_session(&mut write, new, &session, now, expires).await?;
            delete(&mut write, old).await?;
            write.commit().await?;
            let csrf_secret = session.csrf_secret();
            let renewed = UserSession { user: user.user, expires, csrf_secret, as_of: None };
            Ok(Written::unnumbered(Renewed::Renewed(renewed), vec![change(&key)]))
        })
    }
}
