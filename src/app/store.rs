//! Opens the store that the configuration names.

use crate::app::{AppError, schemes};
use crate::clock::Clock;
use crate::config::{Config, Layout, StoreUrl};
use crate::django::Keys;
use crate::store::django::{Django, DjangoSettings};
use crate::store::sqlite::{Sqlite, SqliteOptions};
use crate::store::{Store, StoreError};
use std::path::Path;
use std::sync::Arc;

/// Opens it: our own, or Django's with ours beside it.
pub(in crate::app) async fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, AppError> {
    let options = SqliteOptions { read_wait: config.limits.store_time, ..SqliteOptions::default() };
    let StoreUrl::Sqlite(path) = &config.store.url;
    let Layout::Django(django) = &config.store.layout else {
        let store = Sqlite::open(path, options).await.map_err(failed(path))?;
        if store.has_mirrored_users().await.map_err(failed(path))? {
            // Here they would be active for ever, and whoever was deactivated in Django, too.
            let text = "its users are Django's: it was [store.own] beside an adopted database, and only goes with it";
            return Err(failed(path)(StoreError::NotAdoptable(text.to_owned())));
        }
        return Ok(Arc::new(store));
    };
    let StoreUrl::Sqlite(own_path) = &django.own;
    let own = Sqlite::open(own_path, options.clone()).await.map_err(failed(own_path))?;
    let settings = DjangoSettings {
        keys: Keys::new(&django.secret_key, &django.secret_key_fallbacks),
        backends: django.backends.clone(),
        user: django.user.clone(),
        needs_keys: schemes::needs_keys(config),
        needs_sessions: schemes::needs_sessions(config),
    };
    let store = Django::open(path, options, own, settings, clock.unix()).await.map_err(failed(path))?;
    Ok(Arc::new(store))
}

fn failed(path: &Path) -> impl FnOnce(StoreError) -> AppError {
    let path = path.to_owned();
    |source| AppError::Store { path, source }
}
