//! The public API of each library crate is the one in its `api.txt`, so that a change of it is seen where it is reviewed.
//!
//! A line is one thing that a program may name: an item by its shortest path, with what its use depends on. Names in
//! signatures are as in the sources, so a type that is swapped for another of the same name is not seen, nor are `Send` and
//! `Sync`, bodies and values of constants.
//!
//! ```text
//! POLLUX_UPDATE_API=1 cargo test -p pollux-tools --test api
//! ```
//!
//! writes the files again.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod listing;
mod modules;
mod text;

use std::fs;
use std::path::Path;

use modules::Modules;

const CRATES: [&str; 3] = ["reactor", "nvme-tcp", "multipath"];

/// Lines that are gone have a `-`, new ones a `+`.
fn difference(kept: &str, found: &[String]) -> Vec<String> {
    let kept: Vec<_> = kept.lines().collect();
    let is_gone = |line: &&str| !found.iter().any(|other| other == line);
    let gone = kept.iter().copied().filter(is_gone);
    let new = found.iter().filter(|line| !kept.contains(&line.as_str()));
    let gone = gone.map(|line| format!("- {line}"));
    gone.chain(new.map(|line| format!("+ {line}"))).collect()
}

#[test]
fn the_public_api_is_the_one_that_is_listed() {
    let mut differences = String::new();
    for package in CRATES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(package);
        let found = listing::list(&Modules::load(&folder.join("src")));
        assert!(found.len() > 100, "{package}: {found:?}");
        let file = folder.join("api.txt");
        let text = found.join("\n") + "\n";
        if std::env::var_os("POLLUX_UPDATE_API").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        if kept != text {
            let lines = difference(&kept, &found).join("\n");
            differences += &format!("--- {package}/api.txt\n+++ {package}/src\n{lines}\n");
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}If this is meant: POLLUX_UPDATE_API=1 cargo test -p pollux-tools --test api"
    );
}

/// What a crate of one file lists.
fn listed(source: &str) -> Vec<String> {
    listing::list(&Modules::parse(source, &|place| panic!("no file {place}")))
}

const SOURCE: &str = r#"
    mod inner {
        use std::fmt;

        /// Of use.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Options<T: Copy = u8> { pub depth: u16, pub list: Vec<T>, secret: bool }
        impl<T: Copy> Options<T> {
            pub fn new<'a>(mut depth: u16, name: &'a str) -> Result<Self, String> { Err(String::new()) }
            fn inside(&self) {}
            pub(crate) fn also_inside(&self) {}
        }
        impl fmt::Display for Options { fn fmt(&self) {} }
        impl Iterator for Options { type Item = u8; fn next(&mut self) {} }
        impl Hidden for Options {}
        impl super::Seam for &[u8] {}
        trait Hidden {}
        pub struct NotExported;
        pub fn shown(_: impl FnOnce(&[u8; 4]) -> bool) -> ! { loop {} }
        codes! { /// A code.
            Code(u8) { /// The first.
                ONE = 1, "one"; TWO = 2, "two"; } }
        impl Code { pub const fn is_one(self) -> bool { true } }
    }
    pub mod kinds {
        #[derive(Clone)]
        #[repr(u8)]
        pub enum Kind { Plain = 1, Pair(u8, Box<dyn Fn(u8) -> u8>), #[cfg(feature = "x")] Named { a: u8 } }
        pub use super::inner::shown as renamed;
        #[doc(hidden)] pub fn hidden() {}
        #[cfg(test)] pub mod tests { pub fn test() {} }
    }
    pub use inner::{Code, Options};
    pub use inner::shown;
    pub use other_crate::{Thing, more::*};
    #[cfg(feature = "x")]
    pub use self::with_x::*;
    mod with_x { pub struct Point(pub u8, u8); pub type Pair<T> = (T, T); }
    pub trait Seam: Send { const N: u8; type Of: Copy; fn must(&self); fn may(self: Box<Self>) {} }
    pub const MOST: usize = 3;
"#;

#[test]
fn a_line_is_what_a_user_may_name() {
    let wanted = r##"
        pub use * = other_crate::more
        pub const fn Code::is_one(self) -> bool
        pub const MOST: usize
        #[non_exhaustive] pub struct Options<T: Copy = u8> { .. }
        impl Clone for Options
        impl Debug for Options
        impl Display for Options
        impl Iterator for Options { type Item = u8 }
        pub Options::depth: u16
        pub Options::list: Vec<T>
        pub fn Options::new<'a>(depth: u16, name: &'a str) -> Result<Self, String> (of impl<T: Copy> Options<T>)
        #[cfg(feature = "x")] pub type Pair<T> = (T, T)
        #[cfg(feature = "x")] pub struct Point(pub u8, _)
        pub trait Seam: Send
        impl Seam for &[u8]
        pub const Seam::N: u8
        pub type Seam::Of: Copy
        pub fn Seam::may(self: Box<Self>) { .. }
        pub fn Seam::must(&self)
        pub use Thing = other_crate::Thing
        inner::codes!: Code(u8): ONE = 1, "one"
        inner::codes!: Code(u8): TWO = 2, "two"
        pub mod kinds
        #[repr(u8)] pub enum kinds::Kind
        impl Clone for kinds::Kind
        #[cfg(feature = "x")] pub kinds::Kind::Named { a: u8 }
        pub kinds::Kind::Pair(u8, Box<dyn Fn(u8) -> u8>)
        pub kinds::Kind::Plain = 1
        pub use kinds::renamed = shown
        pub fn shown(_: impl FnOnce(&[u8; 4]) -> bool) -> !
    "##;
    let wanted: Vec<_> = wanted.trim().lines().map(str::trim).collect();
    assert_eq!(listed(SOURCE), wanted);
}

#[test]
fn a_change_of_the_api_is_seen() {
    let before = listed(SOURCE).join("\n");
    let new = "pub fn Options::new<'a>(depth: u16, name: ";
    let of = " -> Result<Self, String> (of impl<T: Copy> Options<T>)";
    let changes = [
        ("name: &'a str", "name: String", format!("- {new}&'a str){of} + {new}String){of}")),
        ("depth: u16,", "depth: u16, pub width: u8,", "+ pub Options::width: u8".into()),
        ("Plain = 1,", "", "- pub kinds::Kind::Plain = 1".into()),
        ("#[repr(u8)]", "", "- #[repr(u8)] pub enum kinds::Kind + pub enum kinds::Kind".into()),
        ("TWO = 2", "TWO = 3", "- inner::codes!: Code(u8): TWO = 2, \"two\" + inner::codes!: Code(u8): TWO = 3, \"two\"".into()),
    ];
    for (was, is, wanted) in changes {
        let after = listed(&SOURCE.replacen(was, is, 1));
        assert_eq!(difference(&before, &after).join(" "), wanted, "{was}");
    }
    let inside = SOURCE
        .replace("secret: bool", "secret: u8")
        .replace("Err(String::new())", "Err(name.into())");
    assert!(difference(&before, &listed(&inside)).is_empty());
}
