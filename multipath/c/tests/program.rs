//! The C example, built by the system's compiler against both libraries, with a real target; under valgrind where
//! `POLLUX_VALGRIND` is set, as CI does.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::TestTarget;

/// Where cargo has put the libraries: beside this test, or one up.
fn library(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join(name));
    paths.find(|path| path.exists()).unwrap()
}

/// Builds the example, linked with these arguments.
fn build(program: &Path, link: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-g",
        ])
        .args(["-D_POSIX_C_SOURCE=200809L", "-I"])
        .arg(here.join("include"))
        .arg(here.join("examples/write_then_read.c"))
        .args(link)
        .arg("-o")
        .arg(program)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
}

fn run(program: &Path, paths: &[String]) -> (bool, String, String) {
    let mut command = match std::env::var_os("POLLUX_VALGRIND") {
        None => Command::new(program),
        Some(_) => {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["-q", "--error-exitcode=99", "--leak-check=full"]);
            // A program that ends early leaves what its threads have.
            valgrind.args([
                "--show-leak-kinds=definite",
                "--errors-for-leak-kinds=definite",
            ]);
            valgrind.arg("--fair-sched=yes");
            valgrind.arg(program);
            valgrind
        }
    };
    let ran = command.args(paths).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (ran.status.success(), text(ran.stdout), text(ran.stderr))
}

#[test]
fn the_example_writes_and_reads() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let path = |port| format!("traddr:127.0.0.1 trsvcid:{port} subnqn:{}", target.nqn);
    let paths = [target.addr.port(), target.listen().port()].map(path);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));

    let statically = folder.join("write_then_read_static");
    let archive = library("libpollux.a");
    let system = ["-lgcc_s", "-lpthread", "-lm", "-ldl"];
    let link = [&[archive.to_str().unwrap()], &system[..]].concat();
    build(&statically, &link);

    let dynamically = folder.join("write_then_read_dynamic");
    let shared = library("libpollux.so");
    let rpath = format!("-Wl,-rpath,{}", shared.parent().unwrap().display());
    build(&dynamically, &[shared.to_str().unwrap(), &rpath]);

    for program in [&statically, &dynamically] {
        let (is_good, out, err) = run(program, &paths);
        assert!(is_good, "{err}");
        assert_eq!(out, "read ****\n");
    }
    // It says what is wrong, in one line.
    let (is_good, _, err) = run(&statically, &["traddr:nowhere".to_owned()]);
    assert!(!is_good);
    let line = err.lines().last().unwrap();
    assert!(
        line.starts_with("attach: transport 'traddr:nowhere': "),
        "{err}"
    );
}
