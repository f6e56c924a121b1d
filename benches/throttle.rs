//! Cost of a throttled hit.
fn main() {}
