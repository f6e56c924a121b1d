//! The text of a statement, from what the three databases have in common to what each of them reads.
//!
//! * Values are `?1`, `?2`, …, in any order and as often as needed.
//! * Names that are reserved somewhere are in double quotes.
//! * `{as_of}` is the number of the newest change, `{place}` the name of where tables are made.
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
    let mut text = String::with_capacity(common.len() + 32);
    let mut order = Vec::new();
    let mut rest = common;
    while let Some(place) = rest.find(['?', '{']) {
        let (before, mark) = rest.split_at(place);
        text.push_str(before);
        rest = if let Some(after) = mark.strip_prefix('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(&expression(dialect, name));
            after
        } else {
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
            after
        };
    }
    text.push_str(rest);
    Translated { text, order: (dialect == Dialect::MySql).then_some(order) }
}

/// What an expression with a name is in this dialect.
fn expression(dialect: Dialect, name: &str) -> String {
    match (name.split_once(':'), dialect) {
        (None, Dialect::Postgres) if name == "place" => "current_schema()::text".to_owned(),
        (None, Dialect::MySql) if name == "place" => "database()".to_owned(),
        (None, Dialect::Sqlite) => r#"(SELECT coalesce(max(sequence), 0) FROM "change")"#.to_owned(),
        (None, Dialect::Postgres | Dialect::MySql) => "(SELECT newest FROM change_counter)".to_owned(),
        (Some((_, names)), Dialect::Sqlite) => format!("group_concat(hex({names}))"),
        (Some((_, names)), Dialect::Postgres) => {
            format!("string_agg(encode(convert_to({names}, 'UTF8'), 'hex'), ',')")
        }
        (Some((_, names)), Dialect::MySql) => format!("group_concat(hex(convert({names} USING utf8mb4)))"),
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
    }

    #[test]
    fn lists_are_written() {
        assert_eq!(list(3, 3), "(?3, ?4, ?5)");
    }
}
