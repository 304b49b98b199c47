"""SPDK's own command line client, as its package brings it, and our programs as it sees them.

The package is installed by pip into the cache, without its dependencies: the client needs none. Nothing of it
is changed or copied.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from guest import die_with_parent
from ours import Process, Rpc
from packages import run

PACKAGE = "spdk==26.9"
MODULE = "spdk.spdk_rpc"
INSTALL_TIMEOUT_S = 120.0
STATUS = "**STATUS="


class Unexpected(Exception):
    """The client or one of our programs did not do what it should."""


def install(cache: Path) -> Path:
    """The directory with the package; installs it if it is missing."""
    wanted = cache / PACKAGE
    if wanted.is_dir():
        return wanted
    cache.mkdir(parents=True, exist_ok=True)
    # Moved to its place as a whole, so that an interrupted run leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        target = Path(temporary) / "package"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--root-user-action=ignore"]
        run([*command, "--target", str(target), PACKAGE], INSTALL_TIMEOUT_S)
        shutil.move(target, wanted)
    return wanted


class Client:
    """The client. Most calls are made by one process that reads command lines, since a start of its own for each
    would take most of the time."""

    def __init__(self, package: Path, log: Path) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = log.open("w")
        self.child = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--server"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=die_with_parent,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Runs a command line; its status, and what it printed."""
        assert self.child.stdin and self.child.stdout
        self.child.stdin.write(shlex.join(arguments) + "\n")
        self.child.stdin.flush()
        printed: list[str] = []
        for line in self.child.stdout:
            if line.startswith(STATUS):
                return int(line.removeprefix(STATUS)), "".join(printed)
            printed.append(line)
        raise Unexpected(f"the client has ended at: {shlex.join(arguments)}; see {self.log.name}")

    def run_alone(self, *arguments: str, script: str = "") -> tuple[int, str]:
        """Runs a command line, or a script on its standard input, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", MODULE, *arguments],
            env=self.environment,
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout

    def commands(self) -> set[str]:
        """The words of its own help; the names of all its commands are among them."""
        status, text = self.run_alone("--help")
        if status != 0:
            raise Unexpected(f"the client has no help: {text[-300:]}")
        return set(text.split())

    def close(self) -> None:
        """Ends it."""
        if self.child.stdin:
            self.child.stdin.close()
        self.child.wait(timeout=10)
        self.log.close()


class Managed:
    """One of our programs, managed by the client."""

    def __init__(self, client: Client, program: list[str], directory: Path, name: str) -> None:
        self.client = client
        self.name = name
        self.socket = directory / f"{name}.sock"
        self.called: set[str] = set()
        arguments = [*program, "-r", str(self.socket)]
        self.process = Process(arguments, directory / f"{name}.log")
        Rpc(self.socket).wait_ready(self.process)

    def call(self, method: str, *arguments: str) -> Any:
        """Runs a command that must succeed; what it printed, as JSON if it is."""
        self.called.add(method)
        status, text = self.client.run("-s", str(self.socket), method, *arguments)
        if status != 0:
            raise Unexpected(f"{self.name}: {method} {shlex.join(arguments)}: {text}")
        try:
            return json.loads(text)
        except ValueError:
            return text.strip()

    def refuse(self, code: int, method: str, *arguments: str) -> None:
        """Runs a command that must fail with this code."""
        status, text = self.client.run("-s", str(self.socket), method, *arguments)
        if status == 0 or f'"code": {code},' not in text:
            wanted = f"should be refused with {code}"
            raise Unexpected(f"{self.name}: {method} {shlex.join(arguments)} {wanted}: {text}")

    def alone(self, *arguments: str, script: str = "") -> str:
        """Runs a command or a script in a process of its own, which must succeed; what it printed."""
        status, text = self.client.run_alone("-s", str(self.socket), *arguments, script=script)
        if status != 0:
            raise Unexpected(f"{self.name}: {shlex.join(arguments)}{script}: {text}")
        return text

    def end(self) -> None:
        """Ends it by the client; its status must be 0."""
        self.call("spdk_kill_instance", "SIGTERM")
        status = self.process.wait(10)
        if status != 0:
            raise Unexpected(f"{self.name} ended with status {status}: {self.process.tail()}")
