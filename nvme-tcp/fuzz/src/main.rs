//! The fuzz targets of `nvme-tcp/tests/fuzz` under libFuzzer; the variable `TARGET` names one.
#![no_main]

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET is set");
    targets::named(&name).expect("TARGET names a target")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
