//! Three real processes side by side, a real database and a real Redis: what one replica revokes is refused by all, and
//! what happens when Redis, the database, or the way to them is away.
//!
//! About real time and real processes, so the clock is the machine's. Times that are asserted are far from those that
//! an idle machine shows, and far from what another mechanism than the one in question could reach.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test"
)]

mod adopted;
mod ailing;
mod alone;
mod drill;
mod fleet;
mod load;
mod long;
mod millions;
mod outages;
mod poison;
mod race;
mod revocation;
mod sharing;

#[path = "../gateway/harness/mod.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which these need a part"
)]
mod harness;
