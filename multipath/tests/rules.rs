//! Which test holds which rule of the multipath behaviour.
//!
//! A test says in its doc comment which rules it holds (`B4.2`, or `B6` for a section without numbers). The table
//! `RULES.md` is made from these words, and this test fails if the table is out of date, if a rule is held by
//! no test, or if a test names a rule that does not exist. To write the table again:
//!
//! ```text
//! POLLUX_UPDATE_RULES=1 cargo test -p pollux-multipath --test rules
//! ```
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Every rule with what it is about.
const RULES: [(&str, &str); 43] = [
    (
        "B1.1",
        "the first attach makes the volumes, further ones add paths",
    ),
    (
        "B1.2",
        "what cannot be attached is refused and changes nothing",
    ),
    (
        "B1.3",
        "namespaces join a volume only where they are the same one",
    ),
    ("B1.4", "an attach ends in time and blocks no reactor"),
    ("B2.1", "what a reactor knows of a path"),
    ("B2.2", "accessible"),
    ("B2.3", "available"),
    ("B3.1", "what makes the ANA log be read, one read at a time"),
    ("B3.2", "AERs are armed again at once, several of them"),
    ("B3.3", "a bad ANA log changes nothing"),
    ("B3.4", "an ANA status takes the path out in the same turn"),
    ("B3.5", "an older epoch is dropped"),
    (
        "B3.6",
        "change counters, namespaces that move, appear or vanish",
    ),
    ("B4.1", "what starts and what cancels ANATT"),
    ("B4.2", "the expiry of ANATT is void for a newer epoch"),
    (
        "B4.3",
        "after the expiry nothing is hoped for from the path",
    ),
    ("B4.4", "persistent loss is not waited for"),
    ("B4.5", "the time left of ANATT is shown"),
    (
        "B5.1",
        "every submission and retry selects among the best available class",
    ),
    ("B5.2", "active_passive: preferred path, failback"),
    ("B5.3", "round_robin and min_io"),
    ("B5.4", "queue_depth"),
    (
        "B5.5",
        "changes of selection reach every reactor and no I/O in flight",
    ),
    ("B6", "what becomes of each completion"),
    ("B7.1", "what I/O waits for"),
    ("B7.2", "waiting I/O goes on in the turn that frees it"),
    (
        "B7.3",
        "waiting I/O fails in the turn in which the last hope goes",
    ),
    ("B8.1", "only the controller that is lost is reset"),
    (
        "B8.2",
        "what a reset does before the path is available again",
    ),
    ("B8.3", "reconnect delay, fast I/O fail and controller loss"),
    ("B8.4", "resets, detaches and attaches at the same time"),
    ("B8.5", "the network may be anything"),
    ("B9.1", "command timeouts"),
    ("B9.2", "keep-alive"),
    ("B9.3", "abort, wherever the command is"),
    (
        "B9.4",
        "a silent queue pair is probed, and its controller reset",
    ),
    (
        "B9.5",
        "transient and final statuses of admin commands; what is not offered is not used",
    ),
    ("B10", "namespaces that are added, removed and resized"),
    ("B11", "detach, and nothing leaks"),
    ("B12", "failover mode"),
    ("B13.1", "what status tells"),
    ("B13.2", "current is what the next submission could use"),
    ("B13.3", "the history of path events"),
];

/// A test that names rules.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    file: String,
    name: String,
    rules: Vec<String>,
    ignored: bool,
}

/// The rules that a text names: `B` with a section and perhaps a number, as a word of its own.
fn rules_in(text: &str) -> Vec<String> {
    let mut rules = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_') {
        let word = word.trim_end_matches('.');
        let Some(number) = word.strip_prefix('B') else {
            continue;
        };
        let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if number.split('.').all(is_number) && !rules.iter().any(|r| r == word) {
            rules.push(word.to_owned());
        }
    }
    rules
}

/// The tests of one file that name rules in the doc comment above them.
fn tests_in(file: &str, source: &str) -> Vec<Test> {
    let mut tests = Vec::new();
    let (mut doc, mut is_test, mut ignored) = (String::new(), false, false);
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
            doc.push('\n');
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
            ignored |= line.starts_with("#[ignore");
        } else {
            let name = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split_once('('))
                .map(|(name, _)| name);
            let rules = rules_in(&doc);
            if let Some(name) = name.filter(|_| is_test && !rules.is_empty()) {
                tests.push(Test {
                    file: file.to_owned(),
                    name: name.to_owned(),
                    rules,
                    ignored,
                });
            }
            doc.clear();
            (is_test, ignored) = (false, false);
        }
    }
    tests
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn visit(folder: &Path, name: &str, tests: &mut Vec<Test>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        let path = format!("{name}/{file}");
        if entry.file_type().unwrap().is_dir() {
            visit(&entry.path(), &path, tests);
        } else if file.ends_with(".rs") {
            let source = std::fs::read_to_string(entry.path()).unwrap();
            tests.extend(tests_in(&path, &source));
        }
    }
}

/// All tests of the workspace that name rules.
fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for package in ["reactor", "nvme-tcp", "multipath", "tools", "perf"] {
        for part in ["src", "tests"] {
            let folder = root().join(package).join(part);
            if folder.is_dir() {
                visit(&folder, &format!("{package}/{part}"), &mut tests);
            }
        }
    }
    tests.sort();
    tests
}

fn table(tests: &[Test]) -> String {
    let mut held: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for test in tests {
        let mark = if test.ignored {
            " (does not pass yet)"
        } else {
            ""
        };
        let file = test.file.trim_end_matches(".rs");
        for rule in &test.rules {
            let row = format!("{}{mark} | {file}", test.name);
            held.entry(rule).or_default().push(row);
        }
    }
    let mut out = String::from(
        "# The rules of multipath behaviour and the tests that hold them\n\n\
         Written by `tests/rules.rs` from the doc comments of the workspace's tests; to write it again:\n\n\
         ```text\nPOLLUX_UPDATE_RULES=1 cargo test -p pollux-multipath --test rules\n```\n\n\
         | Rule | Test | In |\n|---|---|---|\n",
    );
    for (rule, title) in RULES {
        writeln!(out, "| **{rule}** | **{title}** | |").unwrap();
        let none = ["none yet |".to_owned()];
        for row in held.get(rule).map_or(&none[..], Vec::as_slice) {
            writeln!(out, "| {rule} | {row} |").unwrap();
        }
    }
    out
}

#[test]
fn every_rule_is_held_by_a_test() {
    let tests = tests();
    for test in &tests {
        for rule in &test.rules {
            let known = RULES.iter().any(|(known, _)| known == rule);
            assert!(known, "{} in {}: no rule {rule}", test.name, test.file);
        }
    }
    let bare: Vec<_> = RULES
        .into_iter()
        .filter(|(rule, _)| {
            let holds = |test: &Test| !test.ignored && test.rules.iter().any(|r| r == rule);
            !tests.iter().any(holds)
        })
        .collect();
    assert!(bare.is_empty(), "held by no test: {bare:?}");
    let file = root().join("multipath/RULES.md");
    let wanted = table(&tests);
    if std::env::var_os("POLLUX_UPDATE_RULES").is_some() {
        std::fs::write(&file, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "multipath/RULES.md is out of date; POLLUX_UPDATE_RULES=1 cargo test -p pollux-multipath --test rules \
         writes it again"
    );
}

#[test]
fn rules_are_found_where_they_are_named() {
    // Each line is a literal of its own, so that the table does not take this file's example for tests.
    let source = [
        "/// B4.2, B6: what B13.1 says.",
        "///",
        "/// Not XB1.1, B or B2x.",
        "#[test]",
        "#[ignore = \"B3.3\"]",
        "fn one() {",
        "",
        "/// B1.1 of something else",
        "fn helper() {",
        "",
        "/// B1.2",
        "const NOT: u8 = 1;",
        "#[test]",
        "fn two() {",
    ];
    let tests = tests_in("f", &source.join("\n"));
    assert_eq!(tests.len(), 1);
    assert_eq!(tests[0].name, "one");
    assert_eq!(tests[0].rules, ["B4.2", "B6", "B13.1"]);
    assert!(tests[0].ignored);
}

#[test]
fn an_example_of_a_test_is_no_test() {
    let own = tests()
        .into_iter()
        .filter(|t| t.file.ends_with("tests/rules.rs"));
    assert_eq!(own.collect::<Vec<_>>(), []);
}
