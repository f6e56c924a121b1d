//! The program: arguments in, exit code out. All logic is in the library, so that tests build the same gateway.

use doorward::cli::{Arguments, run};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Arguments::read().map_or_else(|code| code, |arguments| run(&arguments))
}
