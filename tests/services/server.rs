//! What every server has: a process that comes and goes, a port and a directory that stay.

use super::process::{Process, Recipe};
use super::refusing::RefusingPort;
use rustix::process::Signal;
use std::path::Path;
use tempfile::TempDir;

/// Its port is its own as long as it lives, also while nobody listens there.
#[derive(Debug)]
pub(crate) struct Server {
    // Ends before its directory goes.
    process: Option<Process>,
    recipe: Recipe,
    port: RefusingPort,
    directory: TempDir,
}

impl Server {
    /// Not yet started.
    pub(super) fn new(recipe: Recipe, port: RefusingPort, directory: TempDir) -> Self {
        Self { process: None, recipe, port, directory }
    }

    /// It serves when this returns.
    pub(super) fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(Process::start(&self.recipe));
    }

    /// Ends it by a signal, and may be launched again.
    pub(super) fn end(&mut self, by: Signal) {
        if let Some(process) = self.process.take() {
            process.stop(by);
        }
    }

    /// From now on its port refuses.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// Its own.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("the server was killed and not started again")
    }

    /// See [`Process::pause`].
    pub(crate) fn pause(&self) {
        self.process().pause();
    }

    /// After [`Server::pause`].
    pub(crate) fn resume(&self) {
        self.process().resume();
    }

    /// What it has written since it was started last.
    pub(crate) fn log(&self) -> String {
        self.process().log()
    }
}
