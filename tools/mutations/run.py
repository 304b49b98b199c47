#!/usr/bin/env python3
"""Puts the faults of mutations.toml into a copy of the tree, one at a time, and tells what catches each of them.

    tools/mutations/run.py --work DIR                all of them; DIR keeps the copy and what was built
    tools/mutations/run.py --work DIR --only NAME    some, by a part of the name
    tools/mutations/run.py --check                   that each still fits the tree; nothing is built

A fault is caught by `pollux sim` when a run breaks a rule, or the program itself notices; how many runs that took is told.
Where it finds nothing the tests are run that the table names. Exit code: 0, 1 (a fault is not caught, or does not fit), 2 (wrong usage).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutations.toml")
FIELDS = {"name", "file", "find", "replace", "rule", "test"}
# Fresh seeds would make what is told of one run of this script differ from the next.
FIRST_SEED = 1_000_000


def load():
    """The table; ends the program where it makes no sense."""
    mutations = tomllib.loads(TABLE.read_text())["mutation"]
    wrong = []
    for mutation in mutations:
        missing = FIELDS - {"test"} - mutation.keys()
        unknown = mutation.keys() - FIELDS
        if missing or unknown:
            wrong.append(f"{mutation.get('name')}: without {sorted(missing)}, with {sorted(unknown)}")
    names = [mutation["name"] for mutation in mutations]
    wrong += [f"{name}: there twice" for name in set(names) if names.count(name) > 1]
    if wrong:
        sys.exit("\n".join(wrong))
    return mutations


def fits(mutation):
    """Why a fault does not fit the tree; None if it does."""
    path = TREE / mutation["file"]
    if not path.is_file():
        return f"there is no {mutation['file']}"
    count = path.read_text().count(mutation["find"])
    if mutation["find"] == mutation["replace"]:
        return "it changes nothing"
    return None if count == 1 else f"its text stands {count} times in {mutation['file']}"


def copy_tree(work):
    """Brings the copy up to date. What has not changed stays untouched, so that it need not be built again."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TREE, check=True, stdout=subprocess.PIPE).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, copy = TREE / name, work / "tree" / name
        if not source.is_file():
            continue
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)


class Copy:
    """The copy of the tree, and what is built of it."""

    def __init__(self, work):
        self.tree = work / "tree"
        self.environment = dict(
            os.environ,
            CARGO_TARGET_DIR=str(work / "target"),
            CARGO_PROFILE_DEV_DEBUG="0",
            # One function changes at a time.
            CARGO_INCREMENTAL="1",
        )
        self.pollux = work / "target" / "debug" / "pollux"

    def cargo(self, *arguments):
        command = ["cargo", *arguments, "--locked"]
        return subprocess.run(
            command, cwd=self.tree, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def build(self):
        # What the simulator does not use would be built and linked each time.
        built = self.cargo("build", "-p", "pollux-tools", "--bin", "pollux", "--no-default-features")
        if built.returncode != 0:
            sys.exit(built.stdout)

    def simulate(self, runs, chunk):
        """How many runs it took until a rule was broken, and which; None for a fault that was not found."""
        done = 0
        while done < runs:
            count = min(chunk, runs - done)
            command = [self.pollux, "sim", "--seed", str(FIRST_SEED + done), "--runs", str(count)]
            ran = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if ran.returncode != 0:
                failed = re.search(r"seed (\d+) breaks a rule after [\d.]+ s: ([^:]*)", ran.stdout)
                if failed:
                    return int(failed[1]) - FIRST_SEED + 1, failed[2]
                lines = ran.stdout.strip().splitlines()
                return done + count, "ended: " + (lines[-1][:90] if lines else f"code {ran.returncode}")
            done += count
        return None

    def fails(self, test):
        """The first tests that fail; None if none does."""
        built = self.cargo("test", "--no-run", *test.split())
        if built.returncode != 0:
            sys.exit(built.stdout)
        ran = self.cargo("test", *test.split())
        if ran.returncode == 0:
            return None
        return ", ".join(re.findall(r"^test (\S+) \.\.\. FAILED", ran.stdout, re.M)[:2]) or "ended"


def run(mutation, copy, arguments):
    """Puts one fault in; what caught it, after how many runs, or None."""
    path = copy.tree / mutation["file"]
    whole = path.read_text()
    path.write_text(whole.replace(mutation["find"], mutation["replace"]))
    try:
        copy.build()
        if found := copy.simulate(arguments.runs, arguments.chunk):
            return f"{found[0]} runs", found[1]
        failed = "test" in mutation and copy.fails(mutation["test"])
        return ("test", failed) if failed else None
    finally:
        path.write_text(whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="DIR", help="for the copy of the tree, some gigabytes")
    parser.add_argument("--only", metavar="NAME", default="", help="faults with this in their names")
    parser.add_argument("--runs", type=int, default=4000, help="runs of the simulator for each fault, 0 for tests alone (%(default)s)")
    parser.add_argument("--chunk", type=int, default=200, help="runs at a time (%(default)s)")
    parser.add_argument("--check", action="store_true", help="only that each fault fits the tree")
    arguments = parser.parse_args()
    mutations = load()
    unfit = [(m["name"], why) for m in mutations if (why := fits(m))]
    for name, why in unfit:
        print(f"{name}: {why}")
    if arguments.check or unfit:
        print(f"{len(mutations) - len(unfit)} of {len(mutations)} faults fit the tree")
        sys.exit(bool(unfit))
    if not arguments.work:
        parser.error("--work DIR is wanted")
    work = arguments.work.resolve()
    copy_tree(work)
    copy = Copy(work)
    chosen = [m for m in mutations if arguments.only in m["name"]]
    uncaught = 0
    for mutation in chosen:
        began = time.monotonic()
        caught = run(mutation, copy, arguments)
        uncaught += caught is None
        by = f"{caught[0]:>10}  {caught[1]}" if caught else "NOT CAUGHT"
        print(f"{mutation['name']:<46} {time.monotonic() - began:5.0f} s  {by}", flush=True)
    print(f"{len(chosen) - uncaught} of {len(chosen)} faults are caught")
    sys.exit(bool(uncaught))


if __name__ == "__main__":
    main()
