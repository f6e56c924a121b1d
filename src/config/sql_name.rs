//! Names of tables and columns: plain enough to stand in SQL between quotes, whatever the database.

use crate::config::problem::Fault;
use crate::config::value::{Written, unexpected};

/// `PostgreSQL` cuts longer names (`NAMEDATALEN`), `MySQL` refuses from 65.
const NAME_BYTES_MAX: usize = 63;

/// The name of a table or column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlName(pub(super) String);

impl Written for SqlName {
    const EXPECTED: &'static str = "the name of a table or column such as \"auth_user\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z_][A-Za-z0-9_]{0,62}$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(unexpected::<Self>(text).help(HELP)) }
    }
}

/// The same where there may be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MaybeSqlName(pub(super) Option<String>);

impl Written for MaybeSqlName {
    const EXPECTED: &'static str =
        "the name of a table or column such as \"email\", or \"\" if there is none";
    const PATTERN: Option<&'static str> = Some("^([A-Za-z_][A-Za-z0-9_]{0,62})?$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "" => Ok(Self(None)),
            text if is_name(text) => Ok(Self(Some(text.to_owned()))),
            _ => Err(unexpected::<Self>(text).help(HELP)),
        }
    }
}

const HELP: &str = "a letter or _, then letters, digits and _; at most 63 in all";

fn is_name(text: &str) -> bool {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let begins_well = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    is_word && begins_well && text.len() <= NAME_BYTES_MAX
}
