//! Path prefixes of one host, most specific first.

use crate::route::Place;
use foldhash::fast::RandomState;
use http::Method;
use std::collections::HashMap;

/// Routes by path prefix.
#[derive(Debug, Default)]
pub(in crate::route) struct Paths {
    exact: HashMap<String, SamePlace, RandomState>,
    /// By prefix in lower case.
    ignoring_case: HashMap<String, SamePlace, RandomState>,
}

/// Routes that differ by method only.
#[derive(Debug, Default)]
pub(in crate::route) struct SamePlace(Vec<(Option<Vec<Method>>, usize)>);

impl Paths {
    /// Adds the route with this number.
    pub(in crate::route) fn add(&mut self, place: &Place, number: usize) {
        let route = (place.methods.clone(), number);
        if place.ignores_case {
            self.ignoring_case.entry(place.path.to_ascii_lowercase()).or_default().0.push(route);
        } else {
            self.exact.entry(place.path.clone()).or_default().0.push(route);
        }
    }

    /// The routes with the longest prefix of this path, on whole segments.
    pub(in crate::route) fn longest(&self, path: &str) -> Option<&SamePlace> {
        let lower = (!self.ignoring_case.is_empty()).then(|| path.to_ascii_lowercase());
        prefixes(path).find_map(|prefix| {
            self.exact.get(prefix).or_else(|| {
                // Lower case keeps lengths, so the prefix of one is as long as that of the other.
                self.ignoring_case.get(lower.as_deref()?.get(..prefix.len())?)
            })
        })
    }
}

impl SamePlace {
    /// The route for a method: one that names it, before one for all.
    pub(in crate::route) fn by_method(&self, method: &Method) -> Option<usize> {
        // RFC 9110 section 9.3.2: HEAD is GET without the content, so who allows one allows the other.
        let is_same = |named: &Method| named == method || (*method == Method::HEAD && *named == Method::GET);
        let has_it = |(methods, _): &&(Option<Vec<Method>>, usize)| {
            methods.as_ref().is_some_and(|m| m.iter().any(is_same))
        };
        let named = self.0.iter().find(has_it);
        named.or_else(|| self.0.iter().find(|(methods, _)| methods.is_none())).map(|(_, number)| *number)
    }
}

/// `/a/b/` → `/a/b`, `/a`, `/`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.strip_suffix('/').unwrap_or(path);
    let first = (!whole.is_empty()).then_some(whole);
    std::iter::successors(first, |prefix| {
        prefix.rfind('/').filter(|slash| *slash > 0).and_then(|slash| prefix.get(..slash))
    })
    .chain(std::iter::once("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_whole_segments() {
        assert_eq!(prefixes("/a/b/").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(prefixes("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(prefixes("/").collect::<Vec<_>>(), ["/"]);
    }
}
