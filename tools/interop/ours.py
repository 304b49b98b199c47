"""Our own programs: command lines, reports and the JSON-RPC socket.

Everything that the cases know about the shape of our output is in this file.
"""

import json
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest import die_with_parent, wait_until

NQN = "nqn.2026-01.io.pollux:interop"
# What `pollux target` reports if it is not told otherwise.
SERIAL = "POLLUX00000000000001"
MODEL = "Pollux NVMe/TCP target"
NAMESPACE_MIB = 32
SHELL = "shell"
CONTROLLER = "controller"
DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
MIB = 1 << 20


class ProgramFailed(Exception):
    """One of our programs did not do what it was asked for."""


class RpcError(Exception):
    """An error answer of the JSON-RPC socket."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: error {code}: {message}")
        self.code = code
        self.message = message


def transport_id(address: tuple[str, int], nqn: str) -> str:
    """A path as our programs take it with `-r`."""
    return f"trtype:TCP adrfam:IPv4 traddr:{address[0]} trsvcid:{address[1]} subnqn:{nqn}"


def namespace_uuid(nsid: int) -> str:
    """The UUID of a namespace of our target, the same after a restart: the kernel insists on it."""
    return f"9d0b6f0e-5e3a-4c55-8a51-{nsid:012}"


class Process:
    """One of our programs while it runs; its output goes to a file."""

    def __init__(self, arguments: list[str], log: Path, interactive: bool = False) -> None:
        self.arguments = arguments
        self.log = log
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.child.poll() is None

    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """The end of what it printed, for a failed case."""
        return self.output().strip()[-300:]

    def wait(self, timeout_s: float) -> int:
        """Waits for its end and returns the exit status."""
        try:
            return self.child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            name = Path(self.arguments[0]).name
            raise ProgramFailed(f"{name} has not ended after {timeout_s:g} s: {self.tail()}") from error

    def terminate(self, timeout_s: float = 10) -> int:
        """Asks it to end."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """Ends it without asking; may be called twice."""
        if self.running():
            self.child.kill()
        self.child.wait(timeout=10)


class Rpc:
    """JSON-RPC 2.0 over a Unix socket, one request at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0

    def call(self, method: str, timeout_s: float = 15, **params: Any) -> Any:
        """Calls a method and returns its result."""
        self.number += 1
        request = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        deadline = time.monotonic() + timeout_s
        received = b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self.path))
            connection.sendall(json.dumps(request).encode())
            while True:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                data = connection.recv(1 << 16)
                if not data:
                    raise ProgramFailed(f"{method}: the RPC socket was closed")
                received += data
                try:
                    answer = json.loads(received)
                    break
                except ValueError:
                    continue
        if "error" in answer:
            raise RpcError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def wait_ready(self, process: Process, timeout_s: float = 15) -> None:
        """Waits until the socket answers."""

        def answers() -> bool:
            if not process.running():
                raise ProgramFailed(f"{Path(process.arguments[0]).name} ended: {process.tail()}")
            try:
                return bool(self.call("rpc_get_methods", timeout_s=5))
            except (FileNotFoundError, ConnectionError):
                return False

        wait_until(f"an answer on {self.path.name}", timeout_s, answers, 0.05)


@dataclass(frozen=True)
class Identified:
    """Identify data: fields of the controller, and of each namespace by NSID, named as in the
    specification (`sn`, `nsze`)."""

    controller: dict[str, Any]
    namespaces: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class AnaGroup:
    """A group descriptor of the ANA log; the state is spelled as the kernel does."""

    state: str
    nsids: list[int]


@dataclass(frozen=True)
class DiscoveryLog:
    """What `pollux discover` reads; the records' fields are named as nvme-cli does."""

    generation: int
    records: list[dict[str, Any]]


def kernel_state(state: str) -> str:
    """An ANA state in the kernel's spelling (`persistent-loss`)."""
    return state.lower().replace("_", "-").replace(" ", "-")


@dataclass(frozen=True)
class PerfReport:
    """What `pollux-perf --json` wrote, and how it ended."""

    status: int
    output: str
    document: dict[str, Any]

    @property
    def ios(self) -> list[int]:
        """Completed I/Os by path, in the order of the command line."""
        return [path["ios"] for path in self.document["paths"]]

    @property
    def errors(self) -> int:
        """I/Os that failed."""
        return int(self.document["errors"])

    @property
    def longest_failure_s(self) -> float:
        """The longest time that an I/O has stood before it failed."""
        return float(self.document["failed_latency_ns"]["max"]) / 1e9

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a success."""
        return float(self.document["longest_gap_ns"]) / 1e9

    @property
    def passed(self) -> bool:
        """No I/O error, no miscompare, and I/O was done, to the end of the run or until Ctrl-C (130)."""
        return self.status in (0, 130) and self.errors == 0 and sum(self.ios) > 0

    def explain(self) -> str:
        """Why it did not pass, for a failed case."""
        errors = self.document.get("errors", "?")
        return f"pollux-perf ended with {self.status}, {errors} errors: {self.output.strip()[-300:]}"


class PerfRun:
    """A `pollux-perf` in progress."""

    def __init__(self, process: Process, report: Path) -> None:
        self.process = process
        self.report = report

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.running()

    def finish(self, timeout_s: float) -> PerfReport:
        """Waits for its end and reads its report; an empty one if it wrote none."""
        status = self.process.wait(timeout_s)
        text = self.report.read_text() if self.report.exists() else ""
        return PerfReport(status, self.process.output(), json.loads(text or "{}"))

    def end(self, timeout_s: float) -> PerfReport:
        """Ends it as Ctrl-C does and reads its report."""
        if self.process.running():
            self.process.child.send_signal(signal.SIGINT)
        return self.finish(timeout_s)


def files(bin_dir: Path, examples_dir: Path) -> dict[str, Path]:
    """Where each of our programs is."""
    return {name: bin_dir / name for name in ("pollux", "pollux-perf")} | {
        name: examples_dir / name for name in (SHELL, CONTROLLER)
    }


class Programs:
    """Starts our programs and ends what a case left running."""

    def __init__(self, files: dict[str, Path], directory: Path) -> None:
        self.files = files
        self.directory = directory
        self.started: list[Process] = []
        self.count = 0

    def path(self, program: str) -> str:
        """The file of a program."""
        return str(self.files[program])

    def start(self, program: str, *arguments: str, interactive: bool = False) -> Process:
        """Starts a program; the case need not end it."""
        self.count += 1
        log = self.directory / f"{self.count:03}-{program}.log"
        process = Process([self.path(program), *arguments], log, interactive)
        self.started.append(process)
        return process

    def socket_path(self) -> Path:
        """A socket name not used before."""
        return self.directory / f"{self.count + 1:03}.sock"

    def kill_all(self) -> None:
        """Ends every program."""
        for process in self.started:
            process.kill()
        self.started.clear()

    def pollux(self, *arguments: str, timeout_s: float = 20) -> tuple[int, str]:
        """Runs `pollux` to its end: exit status and output."""
        process = self.start("pollux", *arguments)
        return process.wait(timeout_s), process.output()

    def read_json(self, command: str, address: tuple[str, int], nqn: str) -> Any:
        """`pollux identify`, `discover` or `ana` with `--json`."""
        process = self.start("pollux", command, "-r", transport_id(address, nqn), "--json")
        status = process.wait(20)
        if status != 0:
            raise ProgramFailed(f"pollux {command} ended with {status}: {process.tail()}")
        return json.loads(process.output())

    def identify(self, address: tuple[str, int], nqn: str) -> "Identified":
        """What `pollux identify` reads from a controller."""
        document = self.read_json("identify", address, nqn)
        return Identified(
            document["controller"], {one["nsid"]: one for one in document["namespaces"]}
        )

    def identify_fails(self, address: tuple[str, int], nqn: str, *options: str) -> tuple[int, str]:
        """Exit status and output of a `pollux identify` that is expected to fail."""
        return self.pollux("identify", "-r", transport_id(address, nqn), "--json", *options)

    def discovery_log(self, address: tuple[str, int]) -> DiscoveryLog:
        """The discovery log of a port."""
        document = self.read_json("discover", address, DISCOVERY_NQN)
        return DiscoveryLog(int(document["genctr"]), list(document["records"]))

    def ana(self, address: tuple[str, int], nqn: str) -> dict[int, "AnaGroup"]:
        """The groups of the ANA log that `pollux ana` reads."""
        groups = self.read_json("ana", address, nqn)["groups"]
        return {
            one["group"]: AnaGroup(kernel_state(one["state"]), one["nsids"]) for one in groups
        }

    def perf(self, addresses: list[tuple[str, int]], nqn: str, *options: str) -> PerfRun:
        """Starts `pollux-perf` over one path for each address."""
        report = self.directory / f"{self.count + 1:03}-report.json"
        paths = [part for one in addresses for part in ("-r", transport_id(one, nqn))]
        process = self.start("pollux-perf", *paths, *options, "--json", str(report))
        return PerfRun(process, report)

    def questions(self, address: tuple[str, int], nqn: str) -> list[tuple[str, int]]:
        """What `nvme-tcp/examples/controller.rs` was answered: status and result of each question."""
        process = self.start(CONTROLLER, f"{address[0]}:{address[1]}", nqn)
        process.wait(20)
        found = re.findall(r"^\w+: (.*), result (0x[0-9a-f]+)$", process.output(), re.MULTILINE)
        return [(status, int(result, 16)) for status, result in found]

    def shell(self, addresses: list[tuple[str, int]], nqn: str, *options: str) -> "OurShell":
        """Starts the shell over one path for each address."""
        paths = [transport_id(one, nqn) for one in addresses]
        return OurShell(self.start(SHELL, *options, *paths, interactive=True))

    def key(self, name: str, *options: str) -> Path:
        """A new file with a key as `pollux key gen` makes them with these options."""
        path = self.directory / f"{name}.key"
        path.unlink(missing_ok=True)
        status, output = self.pollux("key", "gen", "-o", str(path), *options)
        if status != 0:
            raise ProgramFailed(f"pollux key gen ended with {status}: {output}")
        return path

    def host(self) -> "OurHost":
        """Starts `pollux host`, which has no controllers yet."""
        path = self.socket_path()
        process = self.start("pollux", "host", "-r", str(path))
        host = OurHost(process, Rpc(path))
        host.rpc.wait_ready(process)
        return host

    def target(
        self,
        addresses: list[tuple[str, int]],
        *namespaces: str,
        states: tuple[str, ...] = (),
        managed: bool = False,
    ) -> "OurTarget":
        """Starts `pollux target` with a subsystem of one or more namespaces behind these listeners.

        A namespace is `memory`, `null` or `file:PATH`. Either all is said by options, `states` (the ANA
        states of the listeners) too, or the target is `managed`: set up by RPC, namespace N as `bdevN`,
        and what a case changes while it runs needs that.
        """
        if managed:
            path = self.socket_path()
            process = self.start("pollux", "target", "-r", str(path))
            target = OurTarget(process, Rpc(path), addresses)
            target.rpc.wait_ready(process)
            target.create(*namespaces)
            return target
        options = ["--nqn", NQN]
        for address, port in addresses:
            options += ["--listen", f"{address}:{port}"]
        for (address, port), state in zip(addresses, states, strict=False):
            options += ["--ana", f"{address}:{port}={state}"]
        for backend in namespaces:
            sized = backend if ":" in backend else f"{backend}:{NAMESPACE_MIB}M"
            options += ["--namespace", sized]
        process = self.start("pollux", "target", *options)

        def listening() -> bool:
            if not process.running():
                raise ProgramFailed(f"pollux target ended: {process.tail()}")
            return process.output().count("listening on") == len(addresses)

        wait_until("the target to listen", 10, listening, 0.02)
        return OurTarget(process, Rpc(self.socket_path()), addresses)

    def gateway(self, addresses: list[tuple[str, int]], behind: "OurTarget") -> "OurTarget":
        """Starts `pollux run`: namespace 1 of `behind`, by all of its paths, is namespace 1 here."""
        path = self.socket_path()
        process = self.start("pollux", "run", "-r", str(path))
        gateway = OurTarget(process, Rpc(path), addresses)
        gateway.rpc.wait_ready(process)
        for traddr, port in behind.addresses:
            gateway.rpc.call(
                "bdev_nvme_attach_controller",
                name="Behind",
                trtype="tcp",
                adrfam="ipv4",
                traddr=traddr,
                trsvcid=str(port),
                subnqn=NQN,
                multipath="multipath",
            )
        gateway.create()
        gateway.add_namespace(1, "Behindn1")
        return gateway


class OurShell:
    """`multipath/examples/shell.rs`: single I/Os on the volumes of a host of ours."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines = 0
        self.answer()

    def answer(self) -> str:
        """Waits for the next line of its output."""

        def line() -> str | None:
            lines = self.process.output().splitlines(keepends=True)
            if len(lines) > self.lines and lines[self.lines].endswith("\n"):
                return lines[self.lines]
            if not self.process.running():
                raise ProgramFailed(f"the shell ended: {self.process.tail()}")
            return None

        found = wait_until("an answer of the shell", 15, line, 0.01)
        self.lines += 1
        return found.strip()

    def begin(self, command: str) -> None:
        """Sends a command."""
        stdin = self.process.child.stdin
        if stdin is None:
            raise ProgramFailed("the shell has no standard input")
        stdin.write(f"{command}\n".encode())
        stdin.flush()

    def ask(self, command: str) -> str:
        """Sends a command and returns its answer: `ok` and what there is, or `failed: ` and why."""
        self.begin(command)
        return self.answer()

    def run(self, command: str) -> str:
        """Runs a command that must succeed; returns what came after `ok`."""
        answer = self.ask(command)
        status, _, rest = answer.partition(" ")
        if status != "ok":
            raise ProgramFailed(f"{command}: {answer[:300]}")
        return rest

    def volumes(self) -> dict[str, int]:
        """Bytes by volume name."""
        pairs = (one.split("=") for one in self.run("volumes").split())
        return {name: int(size) for name, size in pairs}


class OurHost:
    """A host of ours that is managed by RPC."""

    def __init__(self, process: Process, rpc: Rpc) -> None:
        self.process = process
        self.rpc = rpc

    def attach(self, address: tuple[str, int], nqn: str, **options: Any) -> list[str]:
        """Attaches the controller `Kernel` and returns the names of its volumes."""
        return list(
            self.rpc.call(
                "bdev_nvme_attach_controller",
                name="Kernel",
                trtype="tcp",
                adrfam="ipv4",
                traddr=address[0],
                trsvcid=str(address[1]),
                subnqn=nqn,
                **options,
            )
        )

    def detach(self) -> None:
        """Detaches it; answered when its connections have ended."""
        self.rpc.call("bdev_nvme_detach_controller", name="Kernel")


class OurTarget:
    """A target of ours; all but its process is for one that is managed by RPC."""

    def __init__(self, process: Process, rpc: Rpc, addresses: list[tuple[str, int]]) -> None:
        self.process = process
        self.rpc = rpc
        self.addresses = addresses

    def create(self, *namespaces: str) -> None:
        """Makes the subsystem, its namespaces and its listeners."""
        self.rpc.call("nvmf_create_transport", trtype="TCP")
        self.rpc.call(
            "nvmf_create_subsystem",
            nqn=NQN,
            serial_number=SERIAL,
            model_number=MODEL,
            allow_any_host=True,
            ana_reporting=True,
        )
        for nsid, backend in enumerate(namespaces, start=1):
            self.create_bdev(f"bdev{nsid}", backend)
            self.add_namespace(nsid)
        for path in range(len(self.addresses)):
            self.add_listener(path)

    def create_bdev(self, name: str, backend: str, size_mib: int = NAMESPACE_MIB) -> None:
        """Makes what is behind a namespace: `memory`, `null` or `file:PATH`, with 512 B blocks."""
        kind, _, path = backend.partition(":")
        blocks = size_mib * MIB // 512
        if kind == "file":
            self.rpc.call("bdev_aio_create", name=name, filename=path, block_size=512)
        else:
            method = {"memory": "bdev_malloc_create", "null": "bdev_null_create"}[kind]
            self.rpc.call(method, name=name, num_blocks=blocks, block_size=512)

    def add_namespace(self, nsid: int, bdev: str | None = None) -> None:
        """Adds `bdevN`, or another one, as namespace N."""
        name = bdev or f"bdev{nsid}"
        namespace = {"bdev_name": name, "nsid": nsid, "uuid": namespace_uuid(nsid)}
        added = self.rpc.call("nvmf_subsystem_add_ns", nqn=NQN, namespace=namespace)
        if added != nsid:
            raise ProgramFailed(f"namespace {nsid} was added as {added}")

    def remove_namespace(self, nsid: int) -> None:
        """Removes namespace N."""
        self.rpc.call("nvmf_subsystem_remove_ns", nqn=NQN, nsid=nsid)

    def listen_address(self, path: int) -> dict[str, str]:
        """The address of a listener as the RPC methods take it."""
        traddr, port = self.addresses[path]
        return {"trtype": "tcp", "adrfam": "ipv4", "traddr": traddr, "trsvcid": str(port)}

    def add_listener(self, path: int, **options: Any) -> None:
        """Opens the listener of a path."""
        self.rpc.call(
            "nvmf_subsystem_add_listener",
            nqn=NQN,
            listen_address=self.listen_address(path),
            **options,
        )

    def remove_listener(self, path: int) -> None:
        """Closes the listener of a path and its connections."""
        self.rpc.call(
            "nvmf_subsystem_remove_listener", nqn=NQN, listen_address=self.listen_address(path)
        )

    def set_ana(self, path: int, state: str) -> None:
        """Sets the ANA state of all groups on the listener of a path."""
        self.rpc.call(
            "nvmf_subsystem_listener_set_ana_state",
            nqn=NQN,
            listen_address=self.listen_address(path),
            ana_state=state,
        )

    def resize_namespace(self, nsid: int, size_mib: int) -> None:
        """Makes a null namespace larger."""
        self.rpc.call("bdev_null_resize", name=f"bdev{nsid}", new_size=size_mib)

    def allow_hosts(self, *nqns: str) -> None:
        """Lets these hosts in and no other."""
        self.rpc.call("nvmf_subsystem_allow_any_host", nqn=NQN, allow_any_host=False)
        for nqn in nqns:
            self.rpc.call("nvmf_subsystem_add_host", nqn=NQN, host=nqn)

    def refer(self, address: str, service: str) -> None:
        """Adds a referral to another discovery controller."""
        where = {"trtype": "tcp", "adrfam": "ipv4", "traddr": address, "trsvcid": service}
        self.rpc.call("nvmf_discovery_add_referral", address=where)

    def controllers(self) -> int:
        """How many controllers the subsystem has."""
        return len(self.rpc.call("nvmf_subsystem_get_controllers", nqn=NQN))
