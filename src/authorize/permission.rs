//! Whether a permission lets a request pass. The rules are a closed set: an enum and no trait, so that a new one
//! makes the compiler list every place to change.

use crate::config::Permission;
use crate::identity::User;
use crate::trace::Rule;
use http::Method;

/// Whether a request with this method by this user (`None`: anonymous) may pass.
pub fn allows(permission: &Permission, method: &Method, user: Option<&User>) -> bool {
    match permission {
        // DRF's `AllowAny`.
        Permission::Anyone => true,
        // DRF's `IsAuthenticated`.
        Permission::Authenticated => user.is_some(),
        // DRF's `IsAuthenticatedOrReadOnly` and `SAFE_METHODS` (3.18).
        Permission::ReadOnly => {
            user.is_some() || matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        }
        // DRF's `IsAdminUser`: the staff flag, nothing else.
        Permission::Staff => user.is_some_and(|user| user.is_staff),
        Permission::Groups(names) => user.is_some_and(|user| user.groups.iter().any(|g| contains(names, g))),
        Permission::Users(names) => user.is_some_and(|user| contains(names, &user.username)),
    }
}

/// The permission's code in the trace.
pub fn rule(permission: &Permission) -> Rule {
    match permission {
        Permission::Anyone => Rule::Anyone,
        Permission::Authenticated => Rule::Authenticated,
        Permission::ReadOnly => Rule::ReadOnly,
        Permission::Staff => Rule::Staff,
        Permission::Groups(_) => Rule::Groups,
        Permission::Users(_) => Rule::Users,
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
            assert_eq!(allows(permission, method, user), expected, "{permission:?} {method} {user:?}");
        }
    }
}
