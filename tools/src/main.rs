//! pollux-tools
fn main() {}
