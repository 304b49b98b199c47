"""Cases: how they are written down, run, timed and judged."""

import fnmatch
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bench import Bench
from guest import CommandFailed, GuestError
from ours import ProgramFailed, RpcError

# What the kernel logs by itself now and then. A keep-alive that falls due while a controller is being removed
# ends with a transport error (4) before it is sent, against any target.
HARMLESS = (r"failed nvme_keep_alive_end_io error=4$",)


class Failure(Exception):
    """Something was not as the case demands."""


class CaseTimeout(Exception):
    """The case as a whole took too long."""


@dataclass(frozen=True)
class Case:
    """One case: a function, its arguments, and what it may leave in the kernel's log."""

    direction: str
    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    deadline_s: float
    kernel_log: tuple[str, ...]


CASES: list[Case] = []

CaseFunction = Callable[..., None]


def case(
    direction: str,
    name: str,
    *arguments: Any,
    deadline_s: float = 60,
    kernel_log: tuple[str, ...] = (),
) -> Callable[[CaseFunction], CaseFunction]:
    """Registers a function as a case, more than once with different arguments if need be.

    `kernel_log`: patterns of the kernel errors that the case provokes; any other error fails it.
    """

    def register(function: CaseFunction) -> CaseFunction:
        added = Case(direction, name, function, arguments, deadline_s, kernel_log)
        # Decorators apply from the bottom up; cases run as they are read, from the top down.
        same = [index for index, other in enumerate(CASES) if other.function is function]
        CASES.insert(same[0] if same else len(CASES), added)
        return function

    return register


def check(condition: object, text: str) -> None:
    """Fails the case with this text unless the condition holds."""
    if not condition:
        raise Failure(text)


def equal(what: str, found: object, wanted: object) -> None:
    """Fails the case unless both are equal."""
    if found != wanted:
        raise Failure(f"{what}: {found!r}, should be {wanted!r}")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends what runs inside after this time, wherever it waits."""

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise CaseTimeout(f"not finished after {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def selected(directions: list[str], patterns: list[str]) -> list[Case]:
    """The cases of these directions whose name matches any of the patterns, all if there is none."""
    chosen = []
    for candidate in sorted(CASES, key=lambda candidate: directions_order(directions, candidate)):
        full = f"{candidate.direction}/{candidate.name}"
        wanted = not patterns or any(
            fnmatch.fnmatch(name, pattern) for name in (full, candidate.name) for pattern in patterns
        )
        if candidate.direction in directions and wanted:
            chosen.append(candidate)
    return chosen


def directions_order(directions: list[str], candidate: Case) -> int:
    """Sorts by direction only; cases of one direction stay in the order of the source."""
    return directions.index(candidate.direction) if candidate.direction in directions else 0


def run_case(bench: Bench, candidate: Case) -> str | None:
    """Runs one case. `None` if it passed, else the reason."""
    reason: str | None = None
    try:
        with deadline(candidate.deadline_s):
            bench.begin(candidate.direction)
            candidate.function(bench, *candidate.arguments)
    except (Failure, CaseTimeout, CommandFailed, ProgramFailed, RpcError, TimeoutError) as error:
        reason = str(error)
    except GuestError as error:
        reason = str(error)
        bench.abandon_guest()
    except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error} ({place(error)})"
    try:
        with deadline(60):
            errors = bench.end()
    except (GuestError, CaseTimeout, CommandFailed, TimeoutError, OSError) as error:
        bench.abandon_guest()
        return reason or f"cleaning up: {error}"
    unexpected = [
        line
        for line in errors
        if not any(re.search(pattern, line) for pattern in (*HARMLESS, *candidate.kernel_log))
    ]
    if reason is None and unexpected:
        reason = f"in the kernel's log: {unexpected[0]}"
    return reason


def place(error: BaseException) -> str:
    """Where an unforeseen error came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def run_cases(bench: Bench, cases: list[Case]) -> tuple[int, int]:
    """Runs cases with a line for each; returns how many passed and failed."""
    passed = failed = 0
    for candidate in cases:
        started = time.monotonic()
        reason = run_case(bench, candidate)
        seconds = time.monotonic() - started
        label = f"{candidate.direction}/{candidate.name} ({seconds:.1f} s)"
        if reason is None:
            passed += 1
            print(f"PASS {label}")
        else:
            failed += 1
            print(f"FAIL {label}: {' '.join(reason.split())}")
        sys.stdout.flush()
    return passed, failed
