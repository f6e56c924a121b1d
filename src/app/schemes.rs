//! The instances of schemes that the configuration names.

use crate::app::plan::Parts;
use crate::authenticate::lookups::Lookups;
use crate::authenticate::password::CheckPassword;
use crate::authenticate::scheme::Scheme;
use crate::authenticate::schemes::basic::{BasicScheme, VerifiedPasswords};
use crate::authenticate::schemes::remote_user::{RemoteUserScheme, RemoteUsers};
use crate::authenticate::schemes::session::{SessionScheme, SessionSettings, Sessions};
use crate::authenticate::schemes::token::TokenScheme;
use crate::config::{self, Config, SameSite, SchemeConfig, SessionConfig, TokenFamily};
use crate::csrf::{self, TrustedOrigin};
use crate::identity::Family;
use crate::login::Logins;
use http::HeaderName;
use std::collections::BTreeSet;
use std::sync::Arc;

/// All instances, in the order of the configuration.
pub(in crate::app) fn schemes(parts: &Parts<'_>, logins: &Arc<Logins>) -> Vec<Arc<dyn Scheme>> {
    let lookups = Lookups::new(
        Arc::clone(&parts.backing.cache),
        Arc::clone(&parts.backing.store),
        Arc::clone(&parts.options.clock),
        parts.deployment_key,
    );
    let lookups = lookups.measured(parts.metrics.store.clone()).sharing(parts.backing.shared.clone());
    let lookups = Arc::new(lookups);
    let credentials = &parts.backing.credentials;
    let kept = parts.limiting.kept();
    let sessions = Sessions::new(Arc::clone(&lookups), Arc::clone(credentials), Arc::clone(&kept.renewed));
    let sessions = Arc::new(sessions);
    let checker: Arc<dyn CheckPassword> = Arc::clone(logins) as Arc<dyn CheckPassword>;
    let passwords = VerifiedPasswords::new(
        Arc::clone(&lookups),
        checker,
        Arc::clone(&kept.remembered),
        parts.limiting.lookups(),
    );
    let passwords = Arc::new(passwords);
    let make = |instance: &config::SchemeInstance| -> Arc<dyn Scheme> {
        let given = parts.options.schemes.iter().find(|(name, _)| *name == instance.name);
        match (given, &instance.kind) {
            (Some((_, scheme)), _) => Arc::clone(scheme),
            (None, SchemeConfig::Token { keyword, families }) => {
                let families: Vec<Family> = families.iter().map(|name| family(*name)).collect();
                Arc::new(TokenScheme::new(keyword, &families, Arc::clone(&lookups)))
            }
            (None, SchemeConfig::Basic { realm }) => {
                Arc::new(BasicScheme::new(realm, Arc::clone(&passwords)))
            }
            (None, SchemeConfig::Session(config)) => {
                let settings = Arc::new(session_settings(parts, config));
                Arc::new(SessionScheme::new(settings, Arc::clone(&sessions)))
            }
            (None, SchemeConfig::RemoteUser { header, peers, create_users }) => {
                let users = RemoteUsers::new(Arc::clone(&lookups), Arc::clone(credentials), *create_users);
                Arc::new(RemoteUserScheme::new(header.clone(), peers.clone(), users))
            }
        }
    };
    parts.config.authentication.schemes.iter().map(make).collect()
}

fn family(name: TokenFamily) -> Family {
    match name {
        TokenFamily::Doorward => Family::Doorward,
        TokenFamily::Authtoken => Family::Authtoken,
    }
}

/// What an instance of the session scheme, and the handlers that log in by it, are set to.
pub(in crate::app) fn session_settings(parts: &Parts<'_>, config: &SessionConfig) -> SessionSettings {
    let csrf = &config.csrf;
    let domain = if csrf.in_session { &config.domain } else { &csrf.domain };
    SessionSettings {
        cookie: config.cookie.clone(),
        age: config.age,
        secure: config.secure,
        domain: config.domain.clone(),
        same_site: match config.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        },
        csrf_cookie: csrf.cookie.clone(),
        csrf_age: csrf.age,
        csrf: csrf::Settings {
            // The configuration has checked them.
            trusted_origins: csrf
                .trusted_origins
                .iter()
                .filter_map(|o| TrustedOrigin::parse(o).ok())
                .collect(),
            cookie_domain: domain.clone(),
            header: csrf.header.clone(),
            use_sessions: csrf.in_session,
        },
        // Without one of its own, a proxy in front has it.
        https_port: Some(parts.https_port()).filter(|port| *port != 0).unwrap_or(443),
    }
}

/// Whose cookies are mended on a route where no session is looked at: with Django's tables, those of the scheme `session`,
/// as Django's middleware does for every view. `None`: nobody's.
pub(in crate::app) fn mended(parts: &Parts<'_>, route: &config::Route) -> Option<Arc<SessionSettings>> {
    let schemes = &parts.config.authentication.schemes;
    let of = |number: &usize| match &schemes.get(*number)?.kind {
        SchemeConfig::Session(session) => Some(&**session),
        _ => None,
    };
    if !matches!(parts.config.store.layout, config::Layout::Django(_)) || !needs_sessions(parts.config) {
        return None;
    }
    let of_handler = match &route.action {
        config::Action::Login { session, .. } | config::Action::Logout { session, .. } => Some(session),
        _ => None,
    };
    let of_site = || schemes.iter().position(|scheme| scheme.name == "session");
    let session = route.schemes.iter().chain(of_handler).find_map(of);
    let session = session.or_else(|| of(&of_site()?))?;
    Some(Arc::new(session_settings(parts, session)))
}

/// The instances of the session scheme that are in use, by routes or by handlers.
fn sessions_in_use(config: &Config) -> impl Iterator<Item = &SessionConfig> {
    let of_handlers = config.routes.iter().filter_map(|route| match &route.action {
        config::Action::Login { session, .. } | config::Action::Logout { session, .. } => Some(*session),
        _ => None,
    });
    let numbers: BTreeSet<usize> =
        config.routes.iter().flat_map(|route| route.schemes.iter().copied()).chain(of_handlers).collect();
    numbers.into_iter().filter_map(|number| match &config.authentication.schemes.get(number)?.kind {
        SchemeConfig::Session(session) => Some(&**session),
        _ => None,
    })
}

/// Names of the cookies that are doorward's: those of sessions, and those against forged requests.
pub(in crate::app) fn cookies(config: &Config) -> (Vec<String>, Vec<String>) {
    let sessions: BTreeSet<String> = sessions_in_use(config).map(|session| session.cookie.clone()).collect();
    let csrf = sessions_in_use(config).filter(|session| !session.csrf.in_session);
    let csrf: BTreeSet<String> = csrf.map(|session| session.csrf.cookie.clone()).collect();
    (sessions.into_iter().collect(), csrf.into_iter().collect())
}

/// Names of the fields that only trusted peers may send.
pub(in crate::app) fn remote_users(config: &Config) -> impl Iterator<Item = &HeaderName> {
    config.authentication.schemes.iter().filter_map(|scheme| match &scheme.kind {
        SchemeConfig::RemoteUser { header, .. } => Some(header),
        _ => None,
    })
}

/// Whether sessions are asked for at all.
pub(in crate::app) fn needs_sessions(config: &Config) -> bool {
    sessions_in_use(config).next().is_some()
}

/// Whether keys of DRF are asked for at all.
pub(in crate::app) fn needs_keys(config: &Config) -> bool {
    let is_asked =
        |number: &usize| match config.authentication.schemes.get(*number).map(|scheme| &scheme.kind) {
            Some(SchemeConfig::Token { families, .. }) => families.contains(&TokenFamily::Authtoken),
            _ => false,
        };
    config.routes.iter().any(|route| {
        matches!(route.action, config::Action::ObtainToken { family: TokenFamily::Authtoken })
            || route.schemes.iter().any(is_asked)
    })
}
