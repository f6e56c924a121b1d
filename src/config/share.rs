//! A share of what there is: all, none, or one of so many.

use std::num::NonZeroU32;

use crate::config::problem::Fault;
use crate::config::value::{Written, unexpected};

/// Of so many at most it is one.
const ONE_OF_MAX: u32 = 1_000_000;

/// A share, as `"1/100"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// `"none"`
    None,
    /// One of so many; of one: all.
    OneOf(NonZeroU32),
}

impl Share {
    /// `"all"`
    pub const ALL: Self = Self::OneOf(NonZeroU32::MIN);
}

impl Default for Share {
    fn default() -> Self {
        Self::ALL
    }
}

impl Written for Share {
    const EXPECTED: &'static str = "a share such as \"1/100\", or \"all\" or \"none\"";
    const PATTERN: Option<&'static str> = Some("^(all|none|1/[1-9][0-9]{0,6})$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let digits = text.strip_prefix("1/").filter(|digits| !digits.starts_with(['0', '+']));
        match (text, digits.and_then(|digits| digits.parse::<NonZeroU32>().ok())) {
            ("all", _) => Ok(Self::ALL),
            ("none", _) => Ok(Self::None),
            (_, Some(number)) if number.get() <= ONE_OF_MAX => Ok(Self::OneOf(number)),
            _ => Err(unexpected::<Self>(text).help(format!("from \"1/1\" to \"1/{ONE_OF_MAX}\""))),
        }
    }

    fn from_integer(integer: i64) -> Result<Self, Fault> {
        let meant = match integer {
            0 => "did you mean \"none\"?".to_owned(),
            1 => "did you mean \"all\"?".to_owned(),
            number => format!("did you mean \"1/{}\"?", number.unsigned_abs()),
        };
        Err(unexpected::<Self>(&integer.to_string()).help(meant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_one_of_so_many() {
        let one_of = |number| Share::OneOf(NonZeroU32::new(number).unwrap());
        for (text, share) in [
            ("all", Share::ALL),
            ("1/1", Share::ALL),
            ("none", Share::None),
            ("1/100", one_of(100)),
            ("1/1000000", one_of(1_000_000)),
        ] {
            assert_eq!(Share::from_text(text).unwrap(), share, "{text}");
        }
        for text in
            ["", "1/0", "1/00", "1/+2", "2/100", "1/1000001", "1/99999999999", "100", "1 / 2", "0.01", "All"]
        {
            assert!(Share::from_text(text).is_err(), "{text}");
        }
        assert!(Share::from_integer(100).unwrap_err().to_string().contains("\"1/100\""));
    }
}
