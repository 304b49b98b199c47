//! The examples that help shows run as they are shown, but for their time.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

fn examples(args: &[&str]) -> Vec<String> {
    let output = Command::new(BINARY).args(args).output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, text) = text.split_once("Examples:\n").expect("examples");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().take_while(|line| line.starts_with("  "));
    let commands = lines.filter(|line| line.starts_with("  pollux-perf"));
    commands.map(|line| line.trim().to_owned()).collect()
}

fn run(folder: &Path, example: &str) {
    // Words after -t and --max-time are times; who gives none runs for ten seconds.
    let words: Vec<&str> = example.split_whitespace().collect();
    let mut line = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| words[index]);
        line.push(match before {
            Some("-t") => "0.2",
            Some("--max-time") => "1",
            _ => word,
        });
    }
    if !example.contains(" -t ")
        && !["merge", "report", "compare"]
            .iter()
            .any(|c| example.contains(c))
    {
        line.push("-t 0.2");
    }
    let command = line.join(" ").replace("pollux-perf", BINARY);
    let output = Command::new("sh")
        .args(["-c", &command])
        .current_dir(folder)
        .output()
        .expect("sh starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    // Whether a comparison passes is not its example's business.
    let fine =
        code == Some(0) || (example.contains("compare") && [Some(1), Some(3)].contains(&code));
    assert!(
        fine && !errors.contains("error:"),
        "{command}: {code:?}: {errors}"
    );
}

#[test]
fn examples_run() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("help-examples");
    fs::create_dir_all(&folder).expect("a folder");
    let mut count = 0;
    for args in [
        &["--help"][..],
        &["--help", "examples"],
        &["merge", "--help"],
        &["report", "--help"],
    ] {
        for example in examples(args) {
            // There is no target at the addresses of examples.
            if !example.contains("-r 'traddr") {
                run(&folder, &example);
                count += 1;
            }
        }
    }
    assert!(count >= 14, "{count} examples");
}
