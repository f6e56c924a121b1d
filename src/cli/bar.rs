//! A progress bar on standard error, if that is a terminal.

use crate::cli::tell::tell_plain;
use crate::clock::{Clock as _, Monotonic, SystemClock};
use parking_lot::Mutex;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

const CELLS: usize = 30;
/// It is not drawn more often than anybody sees.
const INTERVAL: Duration = Duration::from_millis(100);
/// Back to the first column, and what was there is gone (ECMA-48: EL).
const CLEAR: &str = "\r\x1b[K";

/// The bar.
#[derive(Debug)]
pub(in crate::cli) struct Bar {
    is_shown: bool,
    clock: SystemClock,
    drawn: Mutex<Monotonic>,
}

impl Bar {
    /// Nothing is shown yet.
    pub(in crate::cli) fn new() -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { is_shown, clock: SystemClock::new(), drawn: Mutex::new(Monotonic(0)) }
    }

    /// Shows how much is done. `total` 0: nobody knows of how much.
    pub(in crate::cli) fn show(&self, what: &str, done: u64, total: u64) {
        if !self.is_shown {
            return;
        }
        let now = self.clock.monotonic();
        let mut drawn = self.drawn.lock();
        if now.since(*drawn) >= INTERVAL {
            *drawn = now;
            tell_plain(&format!("{CLEAR}{what} {}", picture(done, total)));
        }
    }

    /// Takes it away, so that something else can be written.
    pub(in crate::cli) fn clear(&self) {
        if self.is_shown {
            tell_plain(CLEAR);
        }
    }
}

fn picture(done: u64, total: u64) -> String {
    let percent = done.min(total).saturating_mul(100).checked_div(total);
    let Some(percent) = percent else { return done.to_string() };
    let full = usize::try_from(percent).unwrap_or_default().saturating_mul(CELLS) / 100;
    format!("[{:<CELLS$}] {percent:3} %", "#".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_show_how_much_is_done() {
        assert_eq!(picture(0, 10), format!("[{}]   0 %", " ".repeat(30)));
        assert_eq!(picture(5, 10), format!("[{}{}]  50 %", "#".repeat(15), " ".repeat(15)));
        assert_eq!(picture(11, 10), format!("[{}] 100 %", "#".repeat(30)));
        assert_eq!(picture(7, 0), "7");
    }
}
