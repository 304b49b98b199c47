//! Whatever bytes come: each fuzz target over its corpus, and over what a few thousand small changes make of it. What a
//! fuzzer has found once is in the corpus, so that it is found again. `nvme-tcp/fuzz/run` looks for more, guided by coverage.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod targets;

use std::path::Path;

use pollux_reactor::Rng;

/// What is tried is the same each time: the same seed, over the files in the order of their names.
const SEED: u64 = 11;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let entries = folder.join(name).read_dir().unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.iter().map(read).collect()
}

/// Changes a few bytes, moves some, takes some away, or doubles them.
fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const TELLING: [u8; 8] = [0, 1, 4, 0x7f, 0x80, 0xfe, 0xff, 0x10];
    for _ in 0..=rng.below(4) {
        let len = bytes.len() as u64;
        let place = |rng: &mut Rng| usize::try_from(rng.below(len + 1)).unwrap();
        let (at, other) = (place(rng), place(rng));
        let (from, to) = (at.min(other), at.max(other).min(at.min(other) + 64));
        match rng.below(6) {
            0 => bytes.truncate(from),
            1 => drop(bytes.drain(from..to)),
            2 => {
                let piece = bytes[from..to].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.insert(at, TELLING[usize::try_from(rng.below(8)).unwrap()]),
            4 if at < bytes.len() => bytes[at] = TELLING[usize::try_from(rng.below(8)).unwrap()],
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
}

/// Runs a target over its corpus, and that many times over changed copies.
fn run(name: &str, times: usize) {
    let target = targets::named(name).expect("a target");
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for (file, bytes) in &corpus {
        println!("{name}/{file}");
        target(bytes);
    }
    let mut rng = Rng::seeded(SEED);
    for turn in 0..times {
        let (file, bytes) = &corpus[turn % corpus.len()];
        let mut bytes = bytes.clone();
        change(&mut bytes, &mut rng);
        println!("{name}/{file}, changed: {bytes:?}");
        target(&bytes);
    }
}

#[test]
fn no_bytes_break_framing() {
    run("pdus", 20_000);
}

#[test]
fn no_bytes_break_what_reads_structures() {
    run("structures", 20_000);
}

#[test]
fn no_bytes_break_host_or_target() {
    run("wire", 400);
}

#[test]
fn no_bytes_break_management() {
    run("rpc", 500);
}
