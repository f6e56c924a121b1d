//! `[authentication]`: the schemes there are, and what a route asks for unless it says otherwise.
//!
//! Schemes are named instances, and routes refer to them by index: after this module no name is looked up again.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use crate::config::guard::{Guard, SwitchedOff};
use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw;
use crate::config::route::Permission;
use crate::config::scheme::{Around, REALM, SchemeConfig, SchemeKind};
use crate::config::suggest;
use crate::config::traps::Traps;
use crate::config::value::{List, Written as _, check_name};

/// All schemes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Every instance; `token`, `basic` and `session` are the first three.
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

impl Default for Authentication {
    fn default() -> Self {
        Self { schemes: instances(&Around { realm: REALM, is_django: false }), guard: Guard::default() }
    }
}

/// Those that there are without a table, by the names of their kinds.
fn instances(around: &Around<'_>) -> Vec<SchemeInstance> {
    let named = |kind: SchemeConfig| SchemeInstance { name: kind.name().to_owned(), kind };
    around.defaults().map(named).into()
}

/// What a route has unless it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct RouteDefaults {
    /// Indices into the schemes.
    pub(super) schemes: Vec<usize>,
    /// Who may pass.
    pub(super) permission: Permission,
    /// What is mended of DRF.
    pub(super) traps: Traps,
}

impl Authentication {
    pub(super) fn from_raw(
        raw: raw::Authentication,
        is_django: bool,
        problems: &mut Problems,
    ) -> (Self, RouteDefaults, SwitchedOff) {
        let traps = Traps::of_all(&raw);
        let (guard, off) = Guard::from_raw(raw.guard, problems);
        let realm = raw.realm.map_or_else(|| REALM.to_owned(), |entry| entry.value.0);
        let around = Around { realm: &realm, is_django };
        let mut authentication = Self { schemes: instances(&around), guard };
        // The first of the instances is `token`.
        let mut schemes = vec![0];
        match raw.schemes {
            raw::Schemes::Names(names) => {
                let found = scheme_indices(&names, &authentication.schemes, problems);
                // Names that are not known have been reported; routes need not complain again.
                if !found.is_empty() || names.get_ref().is_empty() {
                    schemes = found;
                }
            }
            raw::Schemes::Instances(instances) => authentication.define(instances, &around, problems),
        }
        let permission = raw.permission.map_or(Permission::Authenticated, |it| it.into_inner().into());
        (authentication, RouteDefaults { schemes, permission, traps }, off)
    }

    fn define(
        &mut self,
        instances: BTreeMap<Spanned<String>, raw::Scheme>,
        around: &Around<'_>,
        problems: &mut Problems,
    ) {
        for (name, raw) in instances {
            check_name(&name, "a scheme", problems);
            let Some(kind) = around.scheme(&name, raw, problems) else {
                // What names it need not be reported as well.
                problems.lose(["authentication", "schemes", name.get_ref()].map(str::to_owned).into());
                continue;
            };
            let name = name.into_inner();
            match self.schemes.iter_mut().find(|scheme| scheme.name == name) {
                Some(scheme) => scheme.kind = kind,
                None => self.schemes.push(SchemeInstance { name, kind }),
            }
        }
    }
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
                let help = help.unwrap_or_else(|| match SchemeKind::from_text(&name.value) {
                    Ok(SchemeKind::RemoteUser) => {
                        "define it: [authentication.schemes.remote-user] with peers = [\"127.0.0.1\"]"
                            .to_owned()
                    }
                    _ => format!("known here are {}", quote_all(known())),
                });
                problems.error(&name.span, fault.help(help));
            }
        }
    }
    found
}
