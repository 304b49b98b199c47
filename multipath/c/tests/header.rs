//! The header is what cbindgen makes of the sources.

use std::fs;
use std::path::Path;

/// `POLLUX_UPDATE_HEADER=1 cargo test -p pollux-c --test header` writes it anew.
#[test]
fn the_header_is_that_of_the_sources() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    // The other modules are found from there.
    let builder = cbindgen::Builder::new()
        .with_config(config)
        .with_src(here.join("src/lib.rs"));
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let path = here.join("include/pollux.h");
    if std::env::var_os("POLLUX_UPDATE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, String::from_utf8(made).unwrap());
}
