//! What SIGHUP does.

use crate::app::Reloader;
use crate::cli::log::Log;
use crate::cli::manager::Outcome;
use crate::config::{Config, ConfigError, Problem, Severity};
use std::error::Error;
use std::path::Path;

/// Opens the log's file anew; reads the configuration anew and puts it in place, or says in the log why not.
pub(in crate::cli) fn reload(path: &Path, reloader: &Reloader, log: &Log) -> Outcome {
    // Whoever moved it waits for that, however broken the configuration is; and what is told goes to the new one.
    reloader.log_works(log.reopen());
    let loaded = match Config::load(path) {
        Ok(loaded) => loaded,
        Err(ConfigError::Problems(faulty)) => {
            reloader.refused();
            for problem in &faulty.problems {
                log_problem(path, problem);
            }
            tracing::error!(config = %path.display(), "not reloaded: the old configuration stays");
            return Outcome::Refused;
        }
        Err(error) => {
            reloader.refused();
            let error = &error as &dyn Error;
            tracing::error!(error, "not reloaded: the old configuration stays");
            return Outcome::Refused;
        }
    };
    for problem in &loaded.warnings {
        log_problem(path, problem);
    }
    match reloader.reload(&loaded.config) {
        Ok(restart) => {
            reloader.log_works(log.set(&loaded.config.log));
            for key in restart {
                tracing::warn!(key, "changed, and takes effect after a restart");
            }
            tracing::info!(config = %path.display(), routes = loaded.config.routes.len(), "configuration reloaded");
            Outcome::Taken
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "not reloaded");
            Outcome::Refused
        }
    }
}

fn log_problem(path: &Path, problem: &Problem) {
    let Problem { line, column, message, help, .. } = problem;
    let config = path.display();
    match problem.severity {
        Severity::Error => tracing::error!(%config, line, column, help, "{message}"),
        Severity::Warning => tracing::warn!(%config, line, column, help, "{message}"),
    }
}
