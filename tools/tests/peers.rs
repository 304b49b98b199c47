//! The README's table of peers: each name in it is that of a test, or of a case with a kernel as peer.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::Path;

const FOLDERS: [&str; 5] = ["reactor", "nvme-tcp", "multipath", "tools", "perf"];

/// What is in all files below a folder that end like this; what was built is left out.
fn read_all(folder: &Path, ending: &str, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            read_all(&path, ending, text);
        } else if path.to_str().is_some_and(|name| name.ends_with(ending)) {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The text without spaces, so that it does not matter how a line is broken.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn every_cell_of_the_table_of_peers_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut tests, mut cases) = (String::new(), String::new());
    for folder in FOLDERS {
        let folder = root.join(folder);
        read_all(&folder, ".rs", &mut tests);
        read_all(&folder, "_cases.py", &mut cases);
    }
    let cases = squeezed(&cases);
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Peers\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let mut count = 0;
    for cell in rows.flat_map(|row| row.split('|').skip(2)) {
        // Every other piece is between backticks.
        for name in cell.split('`').skip(1).step_by(2) {
            count += 1;
            let found = match name.split_once('/') {
                Some((direction, case)) => {
                    cases.contains(&format!("@case(\"{direction}\",\"{case}\""))
                }
                None => tests.contains(&format!("fn {name}()")),
            };
            assert!(found, "there is no test '{name}'");
        }
    }
    assert!(count >= 30, "{count} tests in the table");
}
