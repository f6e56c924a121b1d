//! Opens the store that the configuration names.

use crate::app::{AppError, schemes};
use crate::clock::Clock;
use crate::config::{Config, Layout, ServerKind, StoreUrl};
use crate::django::Keys;
use crate::store::django::triggers::Triggers;
use crate::store::django::{Django, DjangoSettings};
use crate::store::own::Own;
use crate::store::sql::ServerOptions;
use crate::store::sqlite::SqliteOptions;
use crate::store::{Store, StoreError};
use base64ct::{Base64, Encoding as _};
use std::sync::Arc;

/// Opens it: our own, or Django's with ours beside it.
pub(in crate::app) async fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, AppError> {
    let url = &config.store.url;
    let Layout::Django(django) = &config.store.layout else {
        let store = open_own(url, config).await.map_err(failed(url))?;
        if store.has_mirrored_users().await.map_err(failed(url))? {
            // Here they would be active for ever, and whoever was deactivated in Django, too.
            let text = "its users are Django's: it was [store.own] beside an adopted database, and only goes with it";
            return Err(failed(url)(StoreError::NotAdoptable(text.to_owned())));
        }
        return Ok(Arc::new(store));
    };
    let own = open_own(&django.own, config).await.map_err(failed(&django.own))?;
    let settings = DjangoSettings {
        keys: Keys::new(&django.secret_key, &django.secret_key_fallbacks),
        backends: django.backends.clone(),
        user: django.user.clone(),
        needs_keys: schemes::needs_keys(config),
        needs_sessions: schemes::needs_sessions(config),
    };
    let store = match url {
        StoreUrl::Sqlite(path) => {
            // Boxed: each driver's part of it is large.
            Box::pin(Django::open(path, sqlite_options(config), own, settings, clock.unix())).await
        }
        StoreUrl::Server(server) => {
            Box::pin(Django::connect(server, &server_options(config), own, settings, clock.unix())).await
        }
    };
    Ok(Arc::new(store.map_err(failed(url))?))
}

/// The triggers on Django's tables. `None`: the configuration names no Django database in PostgreSQL.
///
/// # Errors
/// If the URL cannot be read.
pub fn django_triggers(config: &Config) -> Result<Option<Triggers>, AppError> {
    let url = &config.store.url;
    let (Layout::Django(django), StoreUrl::Server(server)) = (&config.store.layout, url) else {
        return Ok(None);
    };
    if server.kind != ServerKind::Postgres {
        return Ok(None);
    }
    let triggers = Triggers::new(server, &server_options(config), django.user.clone());
    triggers.map(Some).map_err(failed(url))
}

async fn open_own(url: &StoreUrl, config: &Config) -> Result<Own, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => Box::pin(Own::open(path, sqlite_options(config))).await,
        StoreUrl::Server(server) => Box::pin(Own::connect(server, &server_options(config))).await,
    }
}

fn sqlite_options(config: &Config) -> SqliteOptions {
    SqliteOptions { read_wait: config.limits.store_time, ..SqliteOptions::default() }
}

fn server_options(config: &Config) -> ServerOptions {
    ServerOptions {
        read_wait: config.limits.store_time,
        connections: config.store.connections,
        roots_pem: system_roots(),
        ..ServerOptions::default()
    }
}

/// The system's trust anchors as the drivers read them. `None`: there are none.
fn system_roots() -> Option<Vec<u8>> {
    let mut pem = String::new();
    for anchor in rustls_native_certs::load_native_certs().certs {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = Base64::encode_string(&anchor);
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).unwrap_or_default());
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    (!pem.is_empty()).then(|| pem.into_bytes())
}

/// What is told if the store cannot be opened: its path, or its URL without a password.
pub(in crate::app) fn failed(url: &StoreUrl) -> impl FnOnce(StoreError) -> AppError {
    let store = url.file().map_or_else(|| url.to_string(), |path| path.display().to_string());
    |source| AppError::Store { store, source }
}
