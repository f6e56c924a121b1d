//! The closed set of rules: an enum and no trait, so that a new one makes the compiler list every place to change.

use crate::identity::User;
use crate::trace::Rule;
use http::Method;

/// What the principal must be for a request to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// DRF's `AllowAny`.
    Anyone,
    /// DRF's `IsAuthenticated`.
    Authenticated,
    /// DRF's `IsAuthenticatedOrReadOnly`.
    ReadOnly,
    /// DRF's `IsAdminUser`: the staff flag, nothing else.
    Staff,
    /// A member of one of these groups.
    Groups(Vec<String>),
    /// One of these users, by exact name.
    Users(Vec<String>),
}

impl Permission {
    /// Whether a request with this method by this user (`None`: anonymous) may pass.
    pub fn allows(&self, method: &Method, user: Option<&User>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Authenticated => user.is_some(),
            // DRF 3.18, `SAFE_METHODS`.
            Self::ReadOnly => {
                user.is_some() || matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            }
            Self::Staff => user.is_some_and(|user| user.is_staff),
            Self::Groups(names) => user.is_some_and(|user| user.groups.iter().any(|g| contains(names, g))),
            Self::Users(names) => user.is_some_and(|user| contains(names, &user.username)),
        }
    }

    /// Its code in the trace.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Anyone => Rule::Anyone,
            Self::Authenticated => Rule::Authenticated,
            Self::ReadOnly => Rule::ReadOnly,
            Self::Staff => Rule::Staff,
            Self::Groups(_) => Rule::Groups,
            Self::Users(_) => Rule::Users,
        }
    }
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;

    fn user(is_staff: bool, groups: &[&str]) -> User {
        User {
            id: UserId(1),
            username: "alice".into(),
            is_active: true,
            is_staff,
            groups: groups.iter().map(|group| Box::from(*group)).collect(),
            email: "".into(),
            password_version: 1,
            not_before: 0,
        }
    }

    #[test]
    fn each_permission_allows_whom_it_names() {
        let plain = user(false, &["dev"]);
        let staff = user(true, &[]);
        let get = Method::GET;
        let post = Method::POST;
        let groups = Permission::Groups(vec!["ops".to_owned(), "dev".to_owned()]);
        let users = Permission::Users(vec!["Alice".to_owned()]);
        for (permission, method, user, expected) in [
            (&Permission::Anyone, &post, None, true),
            (&Permission::Authenticated, &get, None, false),
            (&Permission::Authenticated, &post, Some(&plain), true),
            (&Permission::ReadOnly, &get, None, true),
            (&Permission::ReadOnly, &post, None, false),
            (&Permission::ReadOnly, &post, Some(&plain), true),
            (&Permission::Staff, &get, Some(&plain), false),
            (&Permission::Staff, &get, Some(&staff), true),
            (&Permission::Staff, &get, None, false),
            (&groups, &get, Some(&plain), true),
            (&groups, &get, Some(&staff), false),
            (&groups, &get, None, false),
            (&users, &get, Some(&plain), false),
            (&users, &get, None, false),
        ] {
            assert_eq!(permission.allows(method, user), expected, "{permission:?} {method} {user:?}");
        }
    }
}
