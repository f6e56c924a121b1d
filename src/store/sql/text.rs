//! The text of a statement, from what the three databases have in common to what each of them reads.
//!
//! * Values are `?1`, `?2`, …, in any order and as often as needed.
//! * Names that are reserved somewhere are in double quotes.
//! * `{as_of}` is the number of the newest change, `{place}` the name of where tables are made.
//! * `{time:?1}` is a moment of a column of Django's from its text, `{text:column}` the text of such a column, in UTC.
//! * `{lock:t}` at the end of a query keeps the rows of the table that is called `t` there as they are until the
//!   transaction ends; in SQLite nobody else writes then anyway.
//! * `{names:expression}` gathers texts into one: in hexadecimal with commas in between, so that any character may be
//!   in them. NULL where there is none.

use std::fmt::Write as _;

/// Which database reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

/// A statement as one database reads it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Translated {
    pub(in crate::store) text: String,
    /// Where values have no numbers: which one comes at each place, from 0.
    pub(in crate::store) order: Option<Vec<usize>>,
}

/// Puts a statement into a dialect. What is no mark of ours is kept as it is.
pub(in crate::store) fn translate(dialect: Dialect, common: &str) -> Translated {
    let common = with_expressions(dialect, common);
    let mut text = String::with_capacity(common.len());
    let mut order = Vec::new();
    let mut rest = &*common;
    while let Some((before, mark)) = rest.find('?').and_then(|place| rest.split_at_checked(place)) {
        text.push_str(before);
        let digits = mark.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let (value, after) = mark.split_at(digits + 1);
        let number = value.get(1..).and_then(|number| number.parse::<usize>().ok()).unwrap_or_default();
        match dialect {
            Dialect::Sqlite => text.push_str(value),
            // Writing to a string never fails.
            Dialect::Postgres => write!(text, "${number}").unwrap_or_default(),
            Dialect::MySql => text.push('?'),
        }
        order.push(number.saturating_sub(1));
        rest = after;
    }
    text.push_str(rest);
    Translated { text, order: (dialect == Dialect::MySql).then_some(order) }
}

fn with_expressions(dialect: Dialect, common: &str) -> String {
    let mut text = String::with_capacity(common.len() + 32);
    let mut rest = common;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&expression(dialect, name));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// What an expression with a name is in this dialect.
fn expression(dialect: Dialect, name: &str) -> String {
    use Dialect::{MySql, Postgres, Sqlite};
    let (name, of) = name.split_once(':').unwrap_or((name, ""));
    match (name, dialect) {
        ("as_of", Sqlite) => r#"(SELECT coalesce(max(sequence), 0) FROM "change")"#.to_owned(),
        ("as_of", Postgres | MySql) => "(SELECT newest FROM change_counter)".to_owned(),
        ("place", Postgres) => "current_schema()::text".to_owned(),
        ("place", MySql) => "database()".to_owned(),
        ("names", Sqlite) => format!("group_concat(hex({of}))"),
        ("names", Postgres) => format!("string_agg(encode(convert_to({of}, 'UTF8'), 'hex'), ',')"),
        ("names", MySql) => format!("group_concat(hex(convert({of} USING utf8mb4)))"),
        ("time", Postgres) => format!("CAST({of} AS timestamptz)"),
        ("time", MySql) => format!("CAST({of} AS DATETIME(6))"),
        ("text", Postgres) => format!("to_char({of} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
        ("text", MySql) => format!("date_format({of}, '%Y-%m-%d %H:%i:%s.%f')"),
        ("lock", Postgres) => format!("FOR NO KEY UPDATE OF {of}"),
        ("lock", MySql) => "FOR UPDATE".to_owned(),
        ("lock", Sqlite) => String::new(),
        // Times are texts there.
        _ => of.to_owned(),
    }
}

/// `(?5, ?6, …)` for so many values from this number on.
pub(in crate::store) fn list(first: usize, count: usize) -> String {
    let mut text = String::from("(");
    for number in first..first + count {
        write!(text, "{}?{number}", if number == first { "" } else { ", " }).unwrap_or_default();
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_as_each_database_wants() {
        let common = "SELECT ?2, ?1 FROM \"user\" WHERE id = ?2 AND x = ?10";
        assert_eq!(translate(Dialect::Sqlite, common).text, common);
        let text = translate(Dialect::Postgres, common);
        assert_eq!(text.text, "SELECT $2, $1 FROM \"user\" WHERE id = $2 AND x = $10");
        assert_eq!(text.order, None);
        let text = translate(Dialect::MySql, common);
        assert_eq!(text.text, "SELECT ?, ? FROM \"user\" WHERE id = ? AND x = ?");
        assert_eq!(text.order, Some(vec![1, 0, 1, 9]));
    }

    #[test]
    fn expressions_have_names() {
        let text = translate(Dialect::Postgres, "SELECT {as_of}, {names:g.name} FROM g");
        let names = "string_agg(encode(convert_to(g.name, 'UTF8'), 'hex'), ',')";
        assert_eq!(text.text, format!("SELECT (SELECT newest FROM change_counter), {names} FROM g"));
        let text = translate(
            Dialect::MySql,
            "SELECT {text:s.at} FROM s WHERE s.at > {time:?2} AND s.k = ?1 {lock:s}",
        );
        let at = "date_format(s.at, '%Y-%m-%d %H:%i:%s.%f')";
        assert_eq!(
            text.text,
            format!("SELECT {at} FROM s WHERE s.at > CAST(? AS DATETIME(6)) AND s.k = ? FOR UPDATE")
        );
        assert_eq!(text.order, Some(vec![1, 0]));
    }

    #[test]
    fn lists_are_written() {
        assert_eq!(list(3, 3), "(?3, ?4, ?5)");
    }
}
