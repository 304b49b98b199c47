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

/// What comes before the table in `RULES.md` is written by hand; a paragraph that begins with `**B4.2**` is that rule.
const TABLE: &str = "\n## Which test holds which rule\n";

/// Every rule that the text has, in its order.
fn rules_of(text: &str) -> Vec<String> {
    let starts = text.lines().filter_map(|line| line.strip_prefix("**B"));
    let numbers = starts.filter_map(|rest| rest.split_once("** "));
    numbers.map(|(number, _)| format!("B{number}")).collect()
}

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

fn table(rules: &[String], tests: &[Test]) -> String {
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
    let mut out = String::from(TABLE);
    out.push_str(
        "\nWritten by `tests/rules.rs` from the doc comments of the workspace's tests; to write it again:\n\n\
         ```text\nPOLLUX_UPDATE_RULES=1 cargo test -p pollux-multipath --test rules\n```\n\n\
         | Rule | Test | In |\n|---|---|---|\n",
    );
    for rule in rules {
        let none = ["none yet |".to_owned()];
        for row in held.get(&**rule).map_or(&none[..], Vec::as_slice) {
            writeln!(out, "| {rule} | {row} |").unwrap();
        }
    }
    out
}

#[test]
fn every_rule_is_held_by_a_test() {
    let file = root().join("multipath/RULES.md");
    let found = std::fs::read_to_string(&file).unwrap();
    let text = found.split(TABLE).next().unwrap_or_default();
    let rules = rules_of(text);
    assert!(rules.len() > 40, "{rules:?}");
    let tests = tests();
    for test in &tests {
        for rule in &test.rules {
            let known = rules.contains(rule);
            assert!(known, "{} in {}: no rule {rule}", test.name, test.file);
        }
    }
    let bare: Vec<_> = rules
        .iter()
        .filter(|rule| {
            let holds = |test: &Test| !test.ignored && test.rules.contains(rule);
            !tests.iter().any(holds)
        })
        .collect();
    assert!(bare.is_empty(), "held by no test: {bare:?}");
    let wanted = format!("{text}{}", table(&rules, &tests));
    if std::env::var_os("POLLUX_UPDATE_RULES").is_some() {
        std::fs::write(&file, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap();
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
