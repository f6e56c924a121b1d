//! The program: arguments in, exit code out. All logic is in the library, so that tests build the same gateway.

use clap::Parser as _;
use doorward::cli::{Arguments, run};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(&Arguments::parse())
}
