//! Tells the program which commit a release build is of. Other builds do not ask: they would be built anew by each commit.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=POLLUX_COMMIT");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if std::env::var_os("POLLUX_COMMIT").is_some() || !is_release {
        return;
    }
    for path in [
        "../reactor/src",
        "../nvme-tcp/src",
        "../multipath/src",
        "src",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    // Without git, or outside of a repository, there is no commit to be told.
    if let Some(commit) = git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]) {
        println!("cargo::rustc-env=POLLUX_COMMIT={commit}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
