//! The examples that help shows run as they are shown, but for their time.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");

fn help(args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).output().expect("it starts");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn examples(args: &[&str]) -> Vec<String> {
    let text = help(args);
    let (_, text) = text.split_once("Examples:\n").expect("examples");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().take_while(|line| line.starts_with("  "));
    let commands = lines.filter(|line| line.starts_with("  pollux-perf"));
    commands.map(|line| line.trim().to_owned()).collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn shell(folder: &Path, command: &str) -> Output {
    Command::new("sh")
        .args(["-c", &command.replace("pollux-perf", BINARY)])
        .current_dir(folder)
        .output()
        .expect("sh starts")
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
        && !["merge", "report", "compare", "bench"]
            .iter()
            .any(|c| example.contains(c))
    {
        line.push("-t 0.2");
    }
    let command = line.join(" ");
    let output = shell(folder, &command);
    let errors = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    // Whether a comparison passes is not its example's business.
    let is_verdict = example.contains("compare") || example.contains("--baseline");
    let fine = code == Some(0) || (is_verdict && [Some(1), Some(3)].contains(&code));
    assert!(
        fine && !errors.contains("pollux-perf: "),
        "{command}: {code:?}: {errors}"
    );
}

/// It is read without a fault, up to where its result would go.
fn read(folder: &Path, example: &str) {
    let words = example.split(" --json ").next().unwrap_or(example);
    let output = shell(folder, &format!("{words} --json /nowhere/at/all.json"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{example}: {errors}");
    assert!(
        errors.contains("/nowhere/at/all.json"),
        "{example}: {errors}"
    );
}

#[test]
fn examples_run() {
    let folder = folder("help-examples");
    let mut count = 0;
    for args in [
        &["--help"][..],
        &["--help", "examples"],
        &["floor", "--help"],
        &["merge", "--help"],
        &["report", "--help"],
    ] {
        for example in examples(args) {
            // There is no target at the addresses of examples.
            match example.contains("-r 'traddr") {
                true => read(&folder, &example),
                false => run(&folder, &example),
            }
            count += 1;
        }
    }
    assert!(count >= 17, "{count} examples");
}

#[test]
fn examples_that_take_minutes_are_read() {
    let folder = folder("help-read");
    let examples = examples(&["disturb", "--help"]);
    assert!(examples.len() >= 4, "{examples:?}");
    examples.iter().for_each(|example| read(&folder, example));
}

#[test]
fn examples_of_the_gate_run() {
    let folder = folder("help-compare");
    for example in examples(&["compare", "--help"]) {
        run(&folder, &example);
        for side in ["a", "b"] {
            for number in 1..=4 {
                let copy = folder.join(format!("{side}{number}.json"));
                fs::copy(folder.join("base.json"), copy).expect("the first example wrote it");
            }
        }
    }
    let text = help(&["bench", "--help"]);
    let (_, profile) = text.split_once("\n\n  [global]").expect("a profile");
    let lines = profile
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("  "));
    let profile: Vec<&str> = lines.collect();
    let profile = format!("[global]\n{}", profile.join("\n"));
    let profile = profile.replace("runtime = 2", "runtime = 0.1\nno_failover = true");
    fs::write(folder.join("bench.toml"), profile).expect("written");
    let suite = examples(&["bench", "--help"]);
    assert_eq!(suite.len(), 2, "{suite:?}");
    suite.iter().for_each(|example| run(&folder, example));
}
