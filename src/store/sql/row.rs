//! A row that came back, read by the names of its columns. What is there and is of another type is an error, never a
//! guess.

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

/// Longest list of names that MySQL makes (`group_concat_max_len`, bytes): it cuts off what is longer, without an
/// error.
pub(in crate::store) const NAMES_BYTES_MAX: usize = 1024 * 1024;

/// A row.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

/// Types of MySQL that hold text or bytes. Its driver tells them apart by a flag of the collation, which says nothing
/// here: names are kept in columns of bytes.
const MYSQL_TEXTS: &[&str] = &[
    "VARCHAR",
    "CHAR",
    "TEXT",
    "TINYTEXT",
    "MEDIUMTEXT",
    "LONGTEXT",
    "VARBINARY",
    "BINARY",
    "BLOB",
    "TINYBLOB",
    "MEDIUMBLOB",
    "LONGBLOB",
];

fn unfit(name: &str, found: &str) -> sqlx::Error {
    let source = format!("a value of type {found} cannot be read here").into();
    sqlx::Error::ColumnDecode { index: name.to_owned(), source }
}

fn missing(name: &str) -> sqlx::Error {
    unfit(name, "NULL")
}

fn mysql_bytes(row: &MySqlRow, name: &str) -> sqlx::Result<Option<Vec<u8>>> {
    let value = row.try_get_raw(name)?;
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.type_info();
    if !MYSQL_TEXTS.contains(&kind.name()) {
        return Err(unfit(name, kind.name()));
    }
    row.try_get_unchecked(name)
}

fn pg_integer(row: &PgRow, name: &str) -> sqlx::Result<Option<i64>> {
    let value = row.try_get_raw(name)?;
    match value.type_info().name() {
        "INT2" => Ok(row.try_get::<Option<i16>, _>(name)?.map(i64::from)),
        "INT4" => Ok(row.try_get::<Option<i32>, _>(name)?.map(i64::from)),
        _ => row.try_get(name),
    }
}

fn mysql_integer(row: &MySqlRow, name: &str) -> sqlx::Result<Option<i64>> {
    let kind = row.try_get_raw(name)?.type_info().name().to_owned();
    if kind.ends_with("UNSIGNED") {
        let value: Option<u64> = row.try_get(name)?;
        return value.map(|value| i64::try_from(value).map_err(|_| unfit(name, &kind))).transpose();
    }
    // A boolean is a small integer there.
    row.try_get_unchecked::<Option<i64>, _>(name).and_then(|value| {
        let is_integer = kind.ends_with("INT") || kind == "BOOLEAN";
        if is_integer || value.is_none() { Ok(value) } else { Err(unfit(name, &kind)) }
    })
}

impl Row {
    /// A whole number, or nothing.
    pub(in crate::store) fn optional_integer(&self, name: &str) -> sqlx::Result<Option<i64>> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => pg_integer(row, name),
            Self::MySql(row) => mysql_integer(row, name),
        }
    }

    /// A whole number.
    pub(in crate::store) fn integer(&self, name: &str) -> sqlx::Result<i64> {
        self.optional_integer(name)?.ok_or_else(|| missing(name))
    }

    /// Bytes, or nothing.
    pub(in crate::store) fn optional_bytes(&self, name: &str) -> sqlx::Result<Option<Vec<u8>>> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
            Self::MySql(row) => mysql_bytes(row, name),
        }
    }

    /// Bytes.
    pub(in crate::store) fn bytes(&self, name: &str) -> sqlx::Result<Vec<u8>> {
        self.optional_bytes(name)?.ok_or_else(|| missing(name))
    }

    /// Text, or nothing.
    pub(in crate::store) fn optional_text(&self, name: &str) -> sqlx::Result<Option<String>> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
            Self::MySql(row) => mysql_bytes(row, name)?
                .map(|bytes| String::from_utf8(bytes).map_err(|_| unfit(name, "bytes that are no text")))
                .transpose(),
        }
    }

    /// Text.
    pub(in crate::store) fn text(&self, name: &str) -> sqlx::Result<String> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    /// Yes or no.
    pub(in crate::store) fn boolean(&self, name: &str) -> sqlx::Result<bool> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
            Self::MySql(row) => {
                mysql_integer(row, name)?.map(|value| value != 0).ok_or_else(|| missing(name))
            }
        }
    }

    /// What `{names:…}` gathered, sorted.
    pub(in crate::store) fn names(&self, name: &str) -> sqlx::Result<Vec<String>> {
        let text = self.optional_text(name)?;
        let is_cut = matches!((self, &text), (Self::MySql(_), Some(text)) if text.len() >= NAMES_BYTES_MAX);
        let names = text.as_deref().map_or(Some(Vec::new()), names).filter(|_| !is_cut);
        names.ok_or_else(|| unfit(name, "a list that is no list of names, or too long"))
    }
}

/// `None`: no list of names.
fn names(text: &str) -> Option<Vec<String>> {
    let mut names = text.split(',').map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    Some(names)
}

fn name(hex: &str) -> Option<String> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    let bytes = pairs.iter().map(byte).collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_hex() {
        assert_eq!(names("62,61,,c3BC"), Some(["", "a", "b", "\u{fc}"].map(str::to_owned).to_vec()));
        assert_eq!(names(""), Some(vec![String::new()]), "one name that is empty");
        for bad in ["6", "6g", "ff", "61;62"] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }
}
