//! pollux-perf
fn main() {}
