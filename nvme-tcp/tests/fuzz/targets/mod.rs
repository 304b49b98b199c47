//! What is fuzzed. A target takes any bytes; it panics if something is wrong.

mod pdus;
mod rpc;
mod structures;
mod wire;

/// A target by its name, which is also that of its corpus.
pub fn named(name: &str) -> Option<fn(&[u8])> {
    match name {
        "pdus" => Some(pdus::run),
        "rpc" => Some(rpc::run),
        "structures" => Some(structures::run),
        "wire" => Some(wire::run),
        _ => None,
    }
}
