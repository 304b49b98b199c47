"""One QEMU guest: start, commands over virtio-serial, links and clock over QMP, end."""

import base64
import ctypes
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from image import Boot
from packages import EMULATOR

T = TypeVar("T")

AGENTS = 4  # the first for short commands, the others for what runs beside them
# The guest's own address on each path. They are loopback addresses on both sides, so that a forwarded
# port has the same address in the guest and on the machine, and a discovery log is right on both.
GUEST_ADDRESSES = ("127.1.0.15", "127.2.0.15")
# Addresses of the machine that the guest reaches by one path only.
MACHINE_ADDRESSES = ("127.3.0.1", "127.4.0.1")
PATHS = len(GUEST_ADDRESSES)  # network devices, each a path of its own
MEMORY_MIB = 512
BOOT_TIMEOUT_S = 90.0
PR_SET_PDEATHSIG = 1
KERNEL_OPTIONS = (
    "console=ttyS0",
    "quiet",
    "loglevel=7",
    "panic=-1",
    "mitigations=off",
    # The first use of a large DH group would test it for longer than a controller may be silent.
    "cryptomgr.notests",
)


class GuestError(Exception):
    """The guest does not answer or refuses; it must be started anew."""


class CommandFailed(Exception):
    """A command in the guest ended with a status other than 0."""


def wait_until(
    what: str, timeout_s: float, condition: Callable[[], T | None], every_s: float = 0.1
) -> T:
    """Asks until the condition holds and returns its value; raises `TimeoutError` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


def die_with_parent() -> None:
    """Run in a new child: the kernel ends it should this program be killed without cleaning up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended."""

    status: int
    output: str


class Channel:
    """One agent in the guest: a command at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.received = b""
        self.number = 0
        self.busy = False

    def connect(self) -> None:
        """Connects to the port's socket, which the emulator listens on."""
        self.socket.connect(str(self.path))

    def start(self, script: str, timeout_s: float) -> None:
        """Sends a script; the guest kills it after `timeout_s`."""
        if self.busy:
            raise GuestError("a command was sent on a channel that is still busy")
        self.number += 1
        self.busy = True
        encoded = base64.b64encode(script.encode()).decode()
        self.socket.settimeout(10)
        self.socket.sendall(f"{self.number} {max(1, round(timeout_s))} {encoded}\n".encode())

    def poll(self, wait_s: float) -> Result | None:
        """The answer, should it be complete within `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            result = self.parse()
            if result is not None:
                self.busy = False
                return result
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            if not data:
                raise GuestError("the guest is gone")
            self.received += data

    def parse(self) -> Result | None:
        """Takes one complete answer off what was received."""
        head, newline, rest = self.received.partition(b"\n")
        if not newline:
            return None
        number, status, length = (int(field) for field in head.split())
        if len(rest) < length:
            return None
        self.received = rest[length:]
        if number != self.number:
            raise GuestError(f"answer {number} to request {self.number}")
        return Result(status, rest[:length].decode(errors="replace"))


class Job:
    """A command that runs in the guest while others do."""

    def __init__(self, channel: Channel, script: str, timeout_s: float) -> None:
        self.channel = channel
        self.deadline = time.monotonic() + timeout_s + 15
        channel.start(script, timeout_s)
        self.result: Result | None = None

    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self.result is None:
            self.result = self.channel.poll(0.001)
        return self.result is None

    def wait(self) -> Result:
        """Waits for the end, at most until the deadline given at the start."""
        if self.result is None:
            self.result = self.channel.poll(max(0.0, self.deadline - time.monotonic()))
        if self.result is None:
            raise GuestError("a command in the guest cannot be ended")
        return self.result


class Qmp:
    """The emulator's control socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Executes a command and returns its result; events in between are dropped."""
        request = json.dumps({"execute": command, "arguments": arguments})
        self.socket.sendall(request.encode() + b"\n")
        while True:
            line = self.lines.readline()
            if not line:
                raise GuestError("the emulator closed its control socket")
            answer = json.loads(line)
            if "error" in answer:
                raise GuestError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Guest:
    """A running guest."""

    def __init__(self, boot: Boot, directory: Path, ports: tuple[int, ...]) -> None:
        """Starts the emulator and waits for the first agent. Port `ports[i]` at
        `GUEST_ADDRESSES[i]` of this machine is forwarded to the same address in the guest."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.kernel_log = directory / "kernel.log"
        self.channels = [Channel(directory / f"agent{index}") for index in range(AGENTS)]
        started = time.monotonic()
        command = self.command(boot, ports)
        with (directory / "emulator.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            self.qmp = wait_until("the emulator's control socket", 20, self.open_qmp, 0.05)
            for channel in self.channels:
                channel.connect()
            self.channels[0].start("uname -r", 10)
            answer = self.channels[0].poll(BOOT_TIMEOUT_S)
            if answer is None:
                raise GuestError(f"no user space after {BOOT_TIMEOUT_S:.0f} s")
            self.release = answer.output.strip()
        except BaseException:
            self.stop()
            raise
        self.boot_s = time.monotonic() - started

    def command(self, boot: Boot, ports: tuple[int, ...]) -> list[str]:
        """The emulator's command line."""
        command = [
            EMULATOR[0],
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB)),
            *("-display", "none", "-no-reboot", "-nodefaults"),
            *("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs)),
            *("-append", " ".join(KERNEL_OPTIONS)),
            *("-serial", f"file:{self.kernel_log}"),
            *("-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off"),
            *("-drive", f"file={boot.disk},format=raw,if=virtio,snapshot=on"),
            *("-device", "virtio-serial-pci"),
        ]
        for index, channel in enumerate(self.channels):
            command += [
                *("-chardev", f"socket,id=agent{index},path={channel.path},server=on,wait=off"),
                *("-device", f"virtserialport,chardev=agent{index},nr={index + 1}"),
            ]
        for index, port in enumerate(ports):
            address = GUEST_ADDRESSES[index]
            network = address.rsplit(".", 1)[0]
            forward = f"hostfwd=tcp:{address}:{port}-{address}:{port}"
            command += [
                "-netdev",
                f"user,id=net{index},net={network}.0/24,host={network}.2,{forward}",
                *("-device", f"virtio-net-pci,id=nic{index},netdev=net{index},romfile="),
                *("-chardev", f"null,id=sink{index}"),
                # Switched on, it sends every packet of the path, both ways, to the null device.
                "-object",
                f"filter-redirector,id=drop{index},netdev=net{index},queue=all,"
                f"outdev=sink{index},status=off",
            ]
        return command

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of the kernel's release."""
        major, minor = self.release.split(".")[:2]
        return int(major), int(minor)

    def open_qmp(self) -> Qmp | None:
        """The control socket as soon as the emulator listens on it."""
        if self.process.poll() is not None:
            log = (self.directory / "emulator.log").read_text(errors="replace")
            raise GuestError(f"the emulator ended at once: {log.strip()}")
        try:
            return Qmp(self.directory / "qmp")
        except (FileNotFoundError, ConnectionError):
            return None

    def run(self, script: str, timeout_s: float = 20) -> Result:
        """Runs a script in the guest; `GuestError` only if it cannot even be killed."""
        channel = self.channels[0]
        channel.start(script, timeout_s)
        result = channel.poll(timeout_s + 10)
        if result is None:
            raise GuestError(f"no answer within {timeout_s + 10:.0f} s: {script[:80]}")
        return result

    def check(self, script: str, timeout_s: float = 20) -> str:
        """Runs a script that must succeed and returns its output without the last newline."""
        result = self.run(script, timeout_s)
        if result.status != 0:
            output = result.output.strip()[-400:]
            raise CommandFailed(f"status {result.status} in the guest: {script[:120]}: {output}")
        return result.output.rstrip("\n")

    def start(self, script: str, timeout_s: float) -> Job:
        """Starts a script beside others; it is killed after `timeout_s`."""
        for channel in self.channels[1:]:
            if not channel.busy:
                return Job(channel, script, timeout_s)
        raise GuestError("all agents of the guest are busy")

    def settle(self) -> None:
        """Ends what a failed case left running."""
        if not any(channel.busy for channel in self.channels[1:]):
            return
        self.run("killall -q -KILL fio nvme dd")
        for channel in self.channels[1:]:
            if channel.busy and channel.poll(10) is None:
                raise GuestError("a command in the guest cannot be ended")

    def set_link(self, path: int, up: bool) -> None:
        """Takes the carrier of a network device, or gives it back."""
        self.qmp.execute("set_link", name=f"nic{path}", up=up)

    def drop_packets(self, path: int, drop: bool) -> None:
        """Drops every packet of a path in silence: the guest's device keeps its carrier."""
        value = "on" if drop else "off"
        self.qmp.execute("qom-set", path=f"/objects/drop{path}", property="status", value=value)

    def freeze(self) -> None:
        """Stops the guest's processors."""
        self.qmp.execute("stop")

    def thaw(self) -> None:
        """Lets them go on."""
        self.qmp.execute("cont")

    def restore_links(self) -> None:
        """Undoes whatever a case did to links and processors."""
        self.thaw()
        for path in range(PATHS):
            self.set_link(path, True)
            self.drop_packets(path, False)

    def kernel_errors(self) -> list[str]:
        """Takes the lines of level `err` and above out of the kernel's log, and the call traces."""
        log = self.check("dmesg -r -c")
        errors = []
        for line in log.splitlines():
            found = re.match(r"<(\d+)>\[ *[\d.]+\] ?(.*)", line)
            if found and (int(found.group(1)) & 7 <= 3 or "Call Trace" in line):
                errors.append(found.group(2))
        return errors

    def stop(self) -> None:
        """Ends the emulator and closes the channels; may be called twice."""
        self.process.kill()
        self.process.wait(timeout=20)
        for channel in self.channels:
            channel.socket.close()
