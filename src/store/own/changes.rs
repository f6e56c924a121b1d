//! The table of changes, and what its rows say.

use crate::identity::{Digest, UserId};
use crate::store::own::Own;
use crate::store::sql::error::unavailable;
use crate::store::sql::{Link, Row, values};
use crate::store::{Change, Changes, History, Sequence, StoreError};

/// More rows than this at once are answered by [`Change::Everything`]: reading them would take longer than
/// confirming what is cached.
pub(in crate::store) const ROWS_MAX: usize = 10_000;
/// The same for what one write tells of itself.
const WRITTEN_MAX: usize = 1000;

/// From the last row read (if it is still there) on.
pub(in crate::store) const READ_ROWS: &str = r#"SELECT sequence, token_digest, user_id, at FROM "change"
    WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2"#;
const READ_LATEST: &str =
    r#"SELECT sequence, token_digest, user_id, at FROM "change" ORDER BY sequence DESC LIMIT ?1"#;
/// With no number, how far the numbers have come is asked, where there are no rows either.
pub(in crate::store) const READ_POSITION: &str = "SELECT {as_of} AS newest";

/// A row of the table of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct ChangeRow {
    pub(in crate::store) sequence: i64,
    pub(in crate::store) digest: Option<Vec<u8>>,
    pub(in crate::store) user: Option<i64>,
    /// When it was committed (seconds since 1970): the number of a commit that was lost may have been given out again
    /// for the same user.
    pub(in crate::store) at: i64,
}

impl ChangeRow {
    pub(in crate::store) fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            sequence: row.integer("sequence")?,
            digest: row.optional_bytes("token_digest")?,
            user: row.optional_integer("user_id")?,
            at: row.integer("at")?,
        })
    }

    /// `None`: a row that says nothing this program understands.
    fn change(&self) -> Option<Change> {
        match (&self.digest, self.user) {
            (Some(digest), None) => Some(Change::Credential(Digest(digest.as_slice().try_into().ok()?))),
            (None, Some(user)) => Some(Change::User(UserId(user))),
            _ => None,
        }
    }
}

/// A number as others see it.
pub(in crate::store) fn sequence(number: i64) -> Sequence {
    Sequence(number.unsigned_abs())
}

/// How many rows are asked for, so that it is seen that there are too many: one of them is known already.
pub(in crate::store) fn limit(rows_max: usize) -> i64 {
    i64::try_from(rows_max + 2).unwrap_or(i64::MAX)
}

/// As [`follow`], for somebody who knows what the row at `position` said: if it says something else, the database is an
/// older copy of itself that has given the number out again. So it may be if the row is gone: nothing shows that it is not.
pub(in crate::store) fn follow_from(
    position: i64,
    known: Option<&ChangeRow>,
    rows: &[ChangeRow],
    rows_max: usize,
) -> Option<Vec<Change>> {
    if known.is_some() && known != rows.first() {
        return None;
    }
    follow(position, rows, rows_max)
}

/// What the rows after `position` say; `None` if they cannot be relied on: some are missing, or there are too many.
pub(in crate::store) fn follow(position: i64, rows: &[ChangeRow], rows_max: usize) -> Option<Vec<Change>> {
    let (known, new) = match rows {
        [first, new @ ..] if first.sequence == position => (true, new),
        new => (false, new),
    };
    // The newest row is never pruned. Where even that is gone the database was replaced by an older copy.
    let replaced = new.is_empty() && !known && position != 0;
    let numbers = (position.saturating_add(1)..).zip(new);
    if replaced || new.len() > rows_max || numbers.clone().any(|(number, row)| row.sequence != number) {
        return None;
    }
    numbers.map(|(_, row)| row.change()).collect()
}

/// The newest row comes first.
fn latest(newest: i64, rows: &[ChangeRow]) -> History {
    let numbers = (0..=newest).rev().zip(rows);
    let told = numbers.map_while(|(number, row)| row.change().filter(|_| row.sequence == number));
    let mut changes: Vec<Change> = told.collect();
    changes.reverse();
    let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    History { after: Sequence(sequence(newest).0.saturating_sub(count)), changes }
}

/// Number of the newest change; 0: there never was one.
pub(in crate::store) async fn newest(link: &mut Link) -> sqlx::Result<i64> {
    link.one(READ_POSITION, values![]).await?.map_or(Ok(0), |row| row.integer("newest"))
}

/// Rows as they were read.
pub(in crate::store) fn rows(rows: &[Row]) -> sqlx::Result<Vec<ChangeRow>> {
    rows.iter().map(ChangeRow::from_row).collect()
}

/// What this connection, which has the lock of the numbers, changed since.
pub(super) async fn since(link: &mut Link, before: i64) -> sqlx::Result<Changes> {
    let newest = newest(link).await?;
    if newest == before {
        return Ok(Changes::numbered(sequence(before), Vec::new()));
    }
    let found = rows(&link.all(READ_ROWS, values![before, limit(WRITTEN_MAX)]).await?)?;
    Ok(match follow(before, &found, WRITTEN_MAX) {
        Some(changes) => Changes::numbered(sequence(before), changes),
        None => Changes::everything(sequence(before), sequence(newest)),
    })
}

impl Own {
    /// The rows that are still there, up to a gap.
    pub(super) async fn read_history(&self) -> Result<History, StoreError> {
        let limit = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
        self.database
            .bounded(async {
                let mut link = self.database.snapshot().await.map_err(unavailable)?;
                let newest = newest(&mut link).await.map_err(unavailable)?;
                let found = link.all(READ_LATEST, values![limit]).await.map_err(unavailable)?;
                Ok(latest(newest, &rows(&found).map_err(unavailable)?))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: i64) -> ChangeRow {
        ChangeRow { sequence, digest: None, user: Some(sequence * 100), at: 1 }
    }

    fn unreadable(sequence: i64) -> ChangeRow {
        ChangeRow { sequence, digest: None, user: None, at: 1 }
    }

    fn follow(position: i64, rows: &[ChangeRow]) -> Option<Vec<Change>> {
        super::follow(position, rows, ROWS_MAX)
    }

    #[test]
    fn rows_in_sequence_are_followed() {
        let user = |id| Change::User(UserId(id));
        assert_eq!(follow(0, &[]), Some(vec![]), "nothing ever happened");
        assert_eq!(follow(4, &[row(4)]), Some(vec![]), "nothing new");
        assert_eq!(follow(4, &[row(4), row(5), row(6)]), Some(vec![user(500), user(600)]));
        assert_eq!(follow(4, &[row(5)]), Some(vec![user(500)]), "the row of the position was pruned");
    }

    #[test]
    fn missing_rows_void_everything() {
        assert_eq!(follow(4, &[row(6)]), None, "5 was pruned");
        assert_eq!(follow(4, &[row(4), row(5), row(7)]), None, "a hole");
        assert_eq!(follow(4, &[]), None, "the database was replaced by an older copy");
        assert_eq!(follow(4, &[row(4), unreadable(5)]), None, "a row of a later schema");
    }

    #[test]
    fn a_number_that_was_given_out_again_voids_everything() {
        let other = ChangeRow { user: Some(7), ..row(4) };
        let from = |known: &ChangeRow, rows: &[ChangeRow]| follow_from(4, Some(known), rows, ROWS_MAX);
        assert_eq!(from(&row(4), &[row(4)]), Some(vec![]));
        assert_eq!(from(&row(4), &[row(4), row(5)]), Some(vec![Change::User(UserId(500))]));
        assert_eq!(from(&row(4), &[row(5)]), None, "it was pruned, and may have said something else");
        assert_eq!(from(&row(4), std::slice::from_ref(&other)), None);
        assert_eq!(from(&row(4), &[other, row(5)]), None);
        let later = ChangeRow { at: 2, ..row(4) };
        assert_eq!(from(&row(4), &[later, row(5)]), None, "the same was done once more");
    }

    #[test]
    fn too_many_rows_void_everything() {
        let last = i64::try_from(ROWS_MAX).unwrap();
        let rows: Vec<ChangeRow> = (1..=last + 1).map(row).collect();
        assert!(follow(0, &rows[..ROWS_MAX]).is_some());
        assert_eq!(follow(0, &rows), None);
    }

    #[test]
    fn history_ends_at_a_gap() {
        let user = |id| Change::User(UserId(id));
        assert_eq!(latest(0, &[]), History { after: Sequence(0), changes: vec![] });
        assert_eq!(latest(7, &[]), History { after: Sequence(7), changes: vec![] }, "all was pruned");
        let told = |after, changes| History { after: Sequence(after), changes };
        assert_eq!(latest(2, &[row(2), row(1)]), told(0, vec![user(100), user(200)]));
        assert_eq!(latest(9, &[row(9), row(8), row(6)]), told(7, vec![user(800), user(900)]));
        assert_eq!(latest(9, &[row(9), unreadable(8)]), told(8, vec![user(900)]));
    }
}
