#!/usr/bin/env python3
"""Interoperability with the Linux kernel's NVMe/TCP, in a QEMU guest.

Directions: `host` is our host against the kernel's target, `target` the kernel's host against our
target, `self` the kernel against itself, which checks this harness and needs no program of ours.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.dont_write_bytecode = True

import auth_cases  # noqa: E402
import concatenation_cases  # noqa: E402
import host_cases  # noqa: E402
import host_path_cases  # noqa: E402
import image  # noqa: E402
import ktls_cases  # noqa: E402
import ours  # noqa: E402
import self_cases  # noqa: E402
import suite  # noqa: E402
import target_cases  # noqa: E402
import target_path_cases  # noqa: E402
import tls_cases  # noqa: E402
from bench import Bench  # noqa: E402
from guest import GuestError  # noqa: E402
from packages import PreparationError  # noqa: E402

CASE_MODULES = (
    self_cases,
    host_cases,
    host_path_cases,
    target_cases,
    target_path_cases,
    auth_cases,
    tls_cases,
    concatenation_cases,
    ktls_cases,
)
DIRECTIONS = ("self", "host", "target")
HERE = Path(__file__).resolve().parent


def options() -> argparse.Namespace:
    """The command line."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--direction",
        action="append",
        choices=DIRECTIONS,
        help="run this direction; may be repeated (default: host and target)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="run cases whose name matches, such as 'host/ana*'; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument(
        "--bin-dir",
        type=Path,
        default=HERE.parents[1] / "target" / "release",
        metavar="DIR",
        help="where our programs are (default: target/release of the workspace)",
    )
    parser.add_argument(
        "--examples-dir",
        type=Path,
        default=HERE.parents[1] / "target" / "debug" / "examples",
        metavar="DIR",
        help="where our examples are (default: target/debug/examples of the workspace, where cargo test builds them)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_home / "pollux-interop",
        metavar="DIR",
        help="where kernel and disk images are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="install, download and build what is needed and end"
    )
    return parser.parse_args()


def interrupted(number: int, _frame: FrameType | None) -> None:
    """A termination signal ends the run like Ctrl-C, with everything cleaned up."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Runs the suite; the exit status is 0 only if every case passed."""
    arguments = options()
    directions = list(dict.fromkeys(arguments.direction or DIRECTIONS[1:]))
    cases = suite.selected(directions, arguments.only)
    if arguments.list:
        print("\n".join(f"{one.direction}/{one.name}" for one in cases))
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    started = time.monotonic()
    try:
        boot = image.prepare(arguments.cache)
    except (PreparationError, OSError) as error:
        print(f"the machine cannot be prepared: {error}", file=sys.stderr)
        return 2
    if arguments.prepare:
        return 0
    if not cases:
        print("no case matches", file=sys.stderr)
        return 2
    files = ours.files(arguments.bin_dir, arguments.examples_dir)
    needed = files.values() if any(one.direction != "self" for one in cases) else ()
    absent = [str(file) for file in needed if not file.exists()]
    if absent:
        print(f"there is no {' and no '.join(absent)}", file=sys.stderr)
        return 2
    prepared = time.monotonic()
    bench = Bench(boot, files)
    failed = 1
    try:
        print(f"booting {boot.kernel.name}", flush=True)
        guest = bench.guest
        print(f"Linux {guest.release} is up after {guest.boot_s:.1f} s", flush=True)
        passed, failed = suite.run_cases(bench, cases)
    except GuestError as error:
        print(f"the guest cannot be started: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        bench.close()
        if failed:
            print(f"logs are in {bench.directory}", flush=True)
        else:
            shutil.rmtree(bench.directory, ignore_errors=True)
    now = time.monotonic()
    print(
        f"preparation {prepared - started:.1f} s, {len(bench.boots_s)} boots of "
        f"{max(bench.boots_s):.1f} s or less, {now - started:.0f} s in all"
    )
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
