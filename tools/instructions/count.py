#!/usr/bin/env python3
"""Counts the instructions of a 4 KiB read and a 4 KiB write, host and target apart, and compares them with the figures here.

    tools/instructions/count.py            fails if one costs 3 % more than its figure
    tools/instructions/count.py --write    makes what is counted the figures; the commit that does says what costs more, and why

perf/examples/instructions.rs is what runs under callgrind (Debian: valgrind). The figures are those of the release
profile and of the compiler that they name; with another compiler they are no more than a hint.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TOLERANCE = 0.03
FIGURES = pathlib.Path(__file__).parent / "figures.json"
ROOT = FIGURES.parent.parent.parent
KINDS = ["host_read", "host_write", "target_read", "target_write"]


def counted():
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "-p", "pollux-perf", "--example", "instructions"],
        cwd=ROOT, check=True)
    program = ROOT / "target/release/examples/instructions"
    # The C library copies by what the processor has; the same instructions everywhere are those that all have.
    environment = dict(os.environ, GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2_Usable,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM")
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/callgrind.out"
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program],
            env=environment, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"count.py: {program} under valgrind: {run.stderr}")
        ios = int(run.stdout)
        shown = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", out],
            capture_output=True, text=True, check=True).stdout
    totals = dict.fromkeys(KINDS, 0)
    for count, kind in re.findall(r"^ *([\d,]+) .*\binstructions::(\w+)", shown, re.M):
        if kind in totals:
            totals[kind] += int(count.replace(",", ""))
    return {kind: total / ios for kind, total in totals.items()}


def main():
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    now = counted()
    if sys.argv[1:] == ["--write"]:
        figures = {"compiler": compiler, **{kind: round(count) for kind, count in now.items()}}
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
        print(FIGURES.read_text(), end="")
        return
    figures = json.loads(FIGURES.read_text())
    dearer = []
    print(f"{'instructions per I/O':24}{'figure':>10}{'counted':>10}")
    for kind in KINDS:
        change = now[kind] / figures[kind] - 1
        print(f"{kind:24}{figures[kind]:>10,}{now[kind]:>10,.0f}  {change:+.1%}")
        if now[kind] <= 0:
            sys.exit(f"count.py: nothing was counted for {kind}")
        if change > TOLERANCE:
            dearer.append(kind)
        elif change < -TOLERANCE:
            print(f"{kind} costs less: make that the figure with tools/instructions/count.py --write")
    if compiler != figures["compiler"]:
        print(f"the figures are of {figures['compiler']}, this is {compiler}")
    if dearer:
        sys.exit(f"count.py: {', '.join(dearer)}: more than {TOLERANCE:.0%} over the figure. If it has to cost that, raise the "
                 "figures with tools/instructions/count.py --write, and say why in the commit")


main()
