//! Arguments, configuration, exit code; no logic.
fn main() {}
