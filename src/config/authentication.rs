//! `[authentication]`: the schemes there are, and what a route asks for unless it says otherwise.
//!
//! Schemes are named instances, and routes refer to them by index: after this module no name is looked up again.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use crate::config::guard::{Guard, SwitchedOff};
use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw;
use crate::config::route::Permission;
use crate::config::suggest;
use crate::config::value::{List, Written, check_name, is_token, one_of};

/// All schemes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Every instance; `token` is always among them.
    pub schemes: Vec<SchemeInstance>,
    /// What stands between passwords and those who guess them.
    pub guard: Guard,
}

/// An authentication scheme under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeInstance {
    /// What routes call it.
    pub name: String,
    /// What it is.
    pub kind: SchemeConfig,
}

/// What kind a scheme is, with the options of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemeConfig {
    /// Tokens as Django REST Framework's `TokenAuthentication` takes them.
    Token {
        /// The word before the token in `Authorization`; compared ignoring case.
        keyword: String,
    },
}

impl Default for SchemeConfig {
    fn default() -> Self {
        Self::Token { keyword: "Token".to_owned() }
    }
}

impl Default for Authentication {
    fn default() -> Self {
        let token = SchemeInstance { name: "token".to_owned(), kind: SchemeConfig::default() };
        Self { schemes: vec![token], guard: Guard::default() }
    }
}

/// What a route has unless it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct RouteDefaults {
    /// Indices into the schemes.
    pub(super) schemes: Vec<usize>,
    /// Who may pass.
    pub(super) permission: Permission,
}

/// A kind of scheme that this version knows.
#[derive(Debug, Clone, Copy)]
pub(super) enum SchemeKind {
    /// DRF's tokens.
    Token,
}

impl Written for SchemeKind {
    const EXPECTED: &'static str = "a kind of scheme such as \"token\"";
    const WORDS: &'static [(&'static str, Self)] = &[("token", Self::Token)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Authentication {
    pub(super) fn from_raw(
        raw: raw::Authentication,
        problems: &mut Problems,
    ) -> (Self, RouteDefaults, SwitchedOff) {
        let (guard, off) = Guard::from_raw(raw.guard, problems);
        let mut authentication = Self { guard, ..Self::default() };
        // The first of the default schemes is `token`.
        let mut schemes = vec![0];
        match raw.schemes {
            raw::Schemes::Names(names) => {
                let found = scheme_indices(&names, &authentication.schemes, problems);
                // Names that are not known have been reported; routes need not complain again.
                if !found.is_empty() || names.get_ref().is_empty() {
                    schemes = found;
                }
            }
            raw::Schemes::Instances(instances) => authentication.define(instances, problems),
        }
        let permission = raw.permission.map_or(Permission::Authenticated, |it| it.into_inner().into());
        (authentication, RouteDefaults { schemes, permission }, off)
    }

    fn define(&mut self, instances: BTreeMap<Spanned<String>, raw::Scheme>, problems: &mut Problems) {
        for (name, raw) in instances {
            check_name(&name, "a scheme", problems);
            let kind = scheme(&name, raw, problems);
            let name = name.into_inner();
            match self.schemes.iter_mut().find(|scheme| scheme.name == name) {
                Some(scheme) => scheme.kind = kind,
                None => self.schemes.push(SchemeInstance { name, kind }),
            }
        }
    }
}

fn scheme(name: &Spanned<String>, raw: raw::Scheme, problems: &mut Problems) -> SchemeConfig {
    let is_kind = SchemeKind::from_text(name.get_ref()).is_ok();
    let path = ["authentication", "schemes", name.get_ref()];
    if raw.kind.is_none() && !is_kind && !problems.is_lost(&path) {
        let fault = Fault::new(format!("scheme {} has no `kind`", quote(name.get_ref())));
        problems.error(&name.span(), fault.help("write kind = \"token\""));
    }
    let Some(keyword) = raw.keyword else { return SchemeConfig::default() };
    // RFC 9110 §11.1: auth-scheme is a token.
    if !is_token(&keyword.value) || keyword.value.len() > 64 {
        let fault =
            Fault::new(format!("expected a keyword such as \"Token\", found {}", quote(&keyword.value)));
        problems.error(&keyword.span, fault.help("one word of letters and digits, at most 64"));
    }
    SchemeConfig::Token { keyword: keyword.value }
}

/// Looks the names up; notes the ones that are not there.
pub(super) fn scheme_indices(
    names: &List<String>,
    schemes: &[SchemeInstance],
    problems: &mut Problems,
) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names.get_ref() {
        if problems.is_full() {
            break;
        }
        match schemes.iter().position(|scheme| scheme.name == name.value) {
            Some(index) if seen.insert(index) => found.push(index),
            Some(_) => {
                problems
                    .error(&name.span, Fault::new(format!("scheme {} is listed twice", quote(&name.value))));
            }
            None if problems.is_lost(&["authentication", "schemes", &name.value]) => {}
            None => {
                let known = || schemes.iter().map(|scheme| scheme.name.as_str());
                let help = suggest::did_you_mean(&name.value, known());
                let fault = Fault::new(format!("there is no scheme {}", quote(&name.value)));
                let help = help.unwrap_or_else(|| format!("known here are {}", quote_all(known())));
                problems.error(&name.span, fault.help(help));
            }
        }
    }
    found
}
