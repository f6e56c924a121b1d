//! Route: which plan a request falls under.
//!
//! The most specific host that has a matching path, then the longest path prefix on whole segments, then methods.
//! Nothing matches by default. If the methods of the longest prefix do not match, no shorter prefix is tried: a
//! public route must not catch what a protected one turned away.

mod table;

use crate::config::HostPattern;
use crate::header::target::Target;
use crate::route::table::Paths;
use foldhash::fast::RandomState;
use http::Method;
use std::collections::HashMap;

/// No route for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No route for host, path and method.
    #[error("no route")]
    None,
    /// A lax backend could take the path for one of another route.
    #[error("the path has readings that belong to different routes")]
    Ambiguous,
}

/// Where a route lies.
#[derive(Debug, Clone)]
pub struct Place {
    /// Which hosts.
    pub host: HostPattern,
    /// Path prefix in normal form, without a trailing slash but for `/`.
    pub path: String,
    /// Which methods; `None`: all.
    pub methods: Option<Vec<Method>>,
    /// Match the path ignoring ASCII case, as the upstream does.
    pub ignores_case: bool,
}

/// The compiled table. Generic over the plan, so that this stage need not know the later ones.
#[derive(Debug)]
pub struct Routes<P> {
    plans: Vec<P>,
    exact: HashMap<String, Paths, RandomState>,
    /// By the name behind `*.`.
    wildcard: HashMap<String, Paths, RandomState>,
    any: Paths,
}

impl<P> Routes<P> {
    /// Compiles the routes, in the order of the configuration.
    pub fn new(routes: impl IntoIterator<Item = (Place, P)>) -> Self {
        let mut table = Self {
            plans: Vec::new(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            any: Paths::default(),
        };
        for (place, plan) in routes {
            let number = table.plans.len();
            let paths = match &place.host {
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                HostPattern::Wildcard(domain) => table.wildcard.entry(domain.clone()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            paths.add(&place, number);
            table.plans.push(plan);
        }
        table
    }

    /// The plan for a request, and its number.
    ///
    /// # Errors
    /// If there is none, or if a lax reading of the path leads to another one.
    pub fn find(&self, host: &str, target: &Target, method: &Method) -> Result<(usize, &P), RouteError> {
        let found = self.number(host, target.path(), method);
        // Asked even if nothing was found: all readings must agree.
        for reading in target.readings() {
            if self.number(host, &reading, method) != found {
                return Err(RouteError::Ambiguous);
            }
        }
        let number = found.ok_or(RouteError::None)?;
        self.plans.get(number).map(|plan| (number, plan)).ok_or(RouteError::None)
    }

    /// All plans, in the order of the configuration.
    pub fn plans(&self) -> &[P] {
        &self.plans
    }

    fn number(&self, host: &str, path: &str, method: &Method) -> Option<usize> {
        let exact = self.exact.get(host);
        // Most tables have none, and looking for dots takes as long as looking a path up.
        let domains = (!self.wildcard.is_empty()).then(|| parents(host)).into_iter().flatten();
        let wildcards = domains.filter_map(|domain| self.wildcard.get(domain));
        let candidates = exact.into_iter().chain(wildcards).chain(std::iter::once(&self.any));
        let mut matching = candidates.filter_map(|paths| paths.longest(path));
        matching.next().and_then(|routes| routes.by_method(method))
    }
}

/// `a.b.c` → `b.c`, `c`: the names whose wildcards match, the longest first.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: HostPattern, path: &str, methods: Option<&[Method]>) -> Place {
        Place { host, path: path.to_owned(), methods: methods.map(<[Method]>::to_vec), ignores_case: false }
    }

    fn find<'a>(
        routes: &'a Routes<&'a str>,
        host: &str,
        path: &str,
        method: &Method,
    ) -> Result<&'a str, RouteError> {
        routes.find(host, &Target::parse(path.parse().unwrap()).unwrap(), method).map(|(_, plan)| *plan)
    }

    #[test]
    fn the_most_specific_host_then_the_longest_prefix_wins() {
        let exact = || HostPattern::Exact("api.example.com".to_owned());
        let wildcard = || HostPattern::Wildcard("example.com".to_owned());
        let routes = Routes::new([
            (place(HostPattern::Any, "/", None), "any"),
            (place(HostPattern::Any, "/deep/er", None), "any deeper"),
            (place(wildcard(), "/", None), "wildcard"),
            (place(exact(), "/api", None), "exact api"),
            (place(exact(), "/api/v1", None), "exact v1"),
        ]);
        for (host, path, plan) in [
            ("api.example.com", "/api", "exact api"),
            ("api.example.com", "/api/", "exact api"),
            ("api.example.com", "/api/v1/x", "exact v1"),
            ("api.example.com", "/api/v10", "exact api"),
            ("api.example.com", "/apix", "wildcard"),
            ("x.y.example.com", "/deep/er", "wildcard"),
            ("example.com", "/", "any"),
            ("other", "/deep/er/x", "any deeper"),
            ("other", "/deep/erx", "any"),
        ] {
            assert_eq!(find(&routes, host, path, &Method::GET), Ok(plan), "{host}{path}");
        }
    }

    #[test]
    fn a_method_that_the_longest_prefix_lacks_is_not_tried_elsewhere() {
        let routes = Routes::new([
            (place(HostPattern::Any, "/", None), "public"),
            (place(HostPattern::Any, "/admin", Some(&[Method::GET])), "get"),
            (place(HostPattern::Any, "/admin", Some(&[Method::PUT])), "put"),
        ]);
        assert_eq!(find(&routes, "h", "/admin/x", &Method::GET), Ok("get"));
        assert_eq!(find(&routes, "h", "/admin/x", &Method::PUT), Ok("put"));
        assert_eq!(find(&routes, "h", "/admin/x", &Method::POST), Err(RouteError::None));
    }

    #[test]
    fn nothing_matches_by_default() {
        let routes = Routes::new([(place(HostPattern::Any, "/a", None), "a")]);
        assert_eq!(find(&routes, "h", "/b", &Method::GET), Err(RouteError::None));
    }

    #[test]
    fn lax_readings_must_lead_to_the_same_route() {
        let routes = Routes::new([
            (place(HostPattern::Any, "/", None), "public"),
            (place(HostPattern::Any, "/protected", None), "protected"),
        ]);
        for path in ["/protected;x/y", "/;x/protected/y", "/pro%20tected", "/protected%3Bx"] {
            assert_eq!(find(&routes, "h", path, &Method::GET), Err(RouteError::Ambiguous), "{path}");
        }
        for path in ["/protected/y;x", "/public;x/y", "/my%20file"] {
            assert!(find(&routes, "h", path, &Method::GET).is_ok(), "{path}");
        }
    }

    #[test]
    fn letter_case_is_ignored_where_the_upstream_ignores_it() {
        let mut admin = place(HostPattern::Any, "/Admin", None);
        admin.ignores_case = true;
        let routes = Routes::new([(place(HostPattern::Any, "/", None), "public"), (admin, "admin")]);
        for path in ["/admin", "/ADMIN/x", "/Admin"] {
            assert_eq!(find(&routes, "h", path, &Method::GET), Ok("admin"), "{path}");
        }
    }
}
