//! Rules between routes: no two claim the same place; a public prefix around a protected one, and a login page that
//! nobody reaches, are pointed out.
//!
//! Everything is looked up by place, so that a file with many routes costs no more than it must.

use std::collections::HashMap;
use std::ops::Range;

use http::Method;

use crate::config::host::HostPattern;
use crate::config::problem::{Fault, Problems, Severity, quote};
use crate::config::route::{Action, Permission, Route};

/// A route and the place of its name.
#[derive(Debug)]
pub(super) struct Placed {
    /// The route.
    pub(super) route: Route,
    /// Its name in the text.
    pub(super) span: Range<usize>,
}

/// What is taken at one host and path.
#[derive(Debug, Default)]
struct Taken<'a> {
    first: Option<&'a Placed>,
    all: Option<&'a Placed>,
    methods: HashMap<&'a Method, &'a Placed>,
}

impl<'a> Taken<'a> {
    /// The route that already has what this one claims.
    fn owner(&self, route: &Route) -> Option<&'a Placed> {
        let by_method = |methods: &Vec<Method>| methods.iter().find_map(|m| self.methods.get(m).copied());
        match &route.methods {
            None => self.first,
            Some(methods) => self.all.filter(|_| !methods.is_empty()).or_else(|| by_method(methods)),
        }
    }

    fn add(&mut self, placed: &'a Placed) {
        match &placed.route.methods {
            None => self.all = self.all.or(Some(placed)),
            Some(methods) if methods.is_empty() => return,
            Some(methods) => {
                for method in methods {
                    self.methods.entry(method).or_insert(placed);
                }
            }
        }
        self.first = self.first.or(Some(placed));
    }
}

/// Notes routes that claim the same host, path and method.
pub(super) fn check_claims(routes: &[Placed], problems: &mut Problems) {
    let mut taken: HashMap<(&HostPattern, &str), Taken<'_>> = HashMap::new();
    for placed in routes {
        let route = &placed.route;
        let place = taken.entry((&route.host, &route.path)).or_default();
        if let Some(owner) = place.owner(route) {
            if problems.is_full() {
                return;
            }
            let fault = claimed_twice(placed, owner, problems);
            problems.error(&placed.span, fault);
        }
        place.add(placed);
    }
}

fn claimed_twice(placed: &Placed, owner: &Placed, problems: &Problems) -> Fault {
    let (line, column) = problems.place(owner.span.start);
    let (name, other) = (quote(&placed.route.name), quote(&owner.route.name));
    let place = quote(&shown_place(&placed.route));
    let fault = Fault::new(format!("route {name} claims {place}, which route {other} has already"));
    let source = problems.source_name();
    fault.help(format!("{other} is at {source}:{line}:{column}; give them other hosts, paths or methods"))
}

fn shown_place(route: &Route) -> String {
    match &route.host {
        HostPattern::Any => route.path.clone(),
        HostPattern::Exact(host) => format!("{host}{}", route.path),
        HostPattern::Wildcard(host) => format!("*.{host}{}", route.path),
    }
}

/// Warns of public prefixes around protected ones: whatever the upstream reads differently from doorward in a path
/// (encoded slashes, letter case, its own rewriting) would lead past the protection.
pub(super) fn check_enclosures(routes: &[Placed], problems: &mut Problems) {
    let mut public: HashMap<&str, Vec<&Placed>> = HashMap::new();
    for placed in routes.iter().filter(|placed| is_public(&placed.route)) {
        public.entry(&placed.route.path).or_default().push(placed);
    }
    for inner in routes.iter().filter(|placed| placed.route.permission != Permission::Anyone) {
        let around = prefixes(&inner.route.path).filter_map(|prefix| public.get(prefix)).flatten();
        for outer in around.filter(|outer| outer.route.host.overlaps(&inner.route.host)) {
            if problems.is_full_of(Severity::Warning) {
                return;
            }
            let fault = enclosed(outer, inner, problems);
            problems.warn(&outer.span, fault);
        }
    }
}

/// Warns of login pages that only users reach who have logged in: browsers would be sent there for ever.
pub(super) fn check_login_pages(routes: &[Placed], problems: &mut Problems) {
    let mut by_path: HashMap<&str, Vec<&Placed>> = HashMap::new();
    for placed in routes {
        by_path.entry(&placed.route.path).or_default().push(placed);
    }
    for placed in routes {
        let Some(page) = &placed.route.login_page else { continue };
        let page = if page == "/" { page } else { page.trim_end_matches('/') };
        // The longest path decides, as for every request.
        let mut around = std::iter::once(page).chain(prefixes(page));
        let serves = |other: &&&Placed| {
            let methods = other.route.methods.as_ref();
            other.route.host.overlaps(&placed.route.host)
                && methods.is_none_or(|methods| methods.contains(&Method::GET))
        };
        let leads_to = around.find_map(|path| by_path.get(path)?.iter().find(serves));
        let is_closed =
            |it: &&&Placed| !matches!(it.route.permission, Permission::Anyone | Permission::ReadOnly);
        if let Some(closed) = leads_to.filter(is_closed) {
            if problems.is_full_of(Severity::Warning) {
                return;
            }
            let (name, other) = (quote(&placed.route.name), quote(&closed.route.name));
            let message =
                format!("the login page of route {name} is in route {other}, which asks for a login");
            let help = "give the page a route of its own: handler = \"login\", or permission = \"anyone\"";
            problems.warn(&placed.span, Fault::new(message).help(help));
        }
    }
}

fn is_public(route: &Route) -> bool {
    route.permission == Permission::Anyone && matches!(route.action, Action::Forward { .. })
}

fn enclosed(outer: &Placed, inner: &Placed, problems: &Problems) -> Fault {
    let (line, column) = problems.place(inner.span.start);
    let (name, other) = (quote(&outer.route.name), quote(&inner.route.name));
    let fault = Fault::new(format!("the public route {name} encloses the protected route {other}"));
    let help = "a path that the upstream reads differently would get past the protection; make the outer route \
                protected and the public parts routes of their own";
    fault.help(format!("{other} is at {}:{line}:{column}\n{help}", problems.source_name()))
}

/// The proper prefixes of a path by whole segments, the longest first.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(above(path), |path| above(path))
}

fn above(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (above, _) => Some(above),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_segments() {
        assert_eq!(prefixes("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(prefixes("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(prefixes("/").count(), 0);
    }
}
