"""TLS by the kernel (kTLS) under our own programs: they run in the guest, whose kernel has the module."""

import functools
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ours
from bench import Bench
from guest import MACHINE_ADDRESSES, Guest, wait_until
from kernel_host import HOST_NQN
from kernel_tls import KernelTls
from suite import case, check, equal
from tls_cases import derived

PROGRAMS = ("pollux", "pollux-perf")
SOCKET = "/tmp/target.sock"
LOG = "/tmp/target.log"
QUEUES = 2  # of a host: the admin queue and one I/O queue
VERIFY = "-w verify -q 8 -o 512-128k -t 3 -m 1"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the guest finds the files of a folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer((MACHINE_ADDRESSES[0], 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{MACHINE_ADDRESSES[0]}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def bring(guest: Guest, files: list[Path]) -> None:
    """Puts programs and keys into the guest's /tmp."""
    for file in files:
        with served(file.parent) as place:
            guest.check(f"wget -q -O /tmp/{file.name} {place}/{file.name}", 60)
    names = " ".join(f"/tmp/{file.name}" for file in files)
    guest.check(f"chmod 700 {names}; chmod 600 /tmp/*.key")


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, which the guest need not have."""
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    words = [line.split() for line in listing.stdout.splitlines()]
    return [Path(line[2]) for line in words if len(line) > 2 and "libgcc" in line[2]]


def counter(guest: Guest, name: str) -> int:
    """A counter of the guest's kernel."""
    return int(guest.check(f"awk '$1 == \"{name}\" {{ print $2 }}' /proc/net/tls_stat"))


def connections(guest: Guest) -> int:
    """How many connections the guest's kernel has been given to encrypt so far."""
    return counter(guest, "TlsTxSw")


def follows_keys(guest: Guest) -> bool:
    """Whether the guest's kernel follows a peer that changes its keys."""
    return guest.version >= (6, 14)


class GuestTarget:
    """Our target in the guest, at the port of its first path that the machine reaches."""

    def __init__(self, bench: Bench, key: Path) -> None:
        self.guest = bench.guest
        self.address = bench.kernel_ports[0]
        traddr, port = self.address
        self.guest.check(
            f"setsid /tmp/pollux target --nqn {ours.NQN} --listen {traddr}:{port} --namespace memory:16M "
            f"--allow-host {HOST_NQN} --tls-psk /tmp/{key.name} -r {SOCKET} > {LOG} 2>&1 < /dev/null &\n"
            f"until grep -q 'listening on' {LOG}; do sleep 0.1; done",
            60,
        )

    def rpc(self, method: str, **params: object) -> object:
        """Calls a method of the target."""
        line = f"/tmp/pollux rpc -r {SOCKET} {method} '{json.dumps(params)}'"
        return json.loads(self.guest.check(line, 30))

    def ask_kernel(self, wanted: bool) -> None:
        """Whether the kernel is to encrypt what connects from now on."""
        self.rpc("sock_impl_set_options", impl_name="ssl", enable_ktls=wanted)

    def ktls(self) -> list[bool]:
        """Of each queue, whether the kernel encrypts it."""
        queues = self.rpc("nvmf_subsystem_get_qpairs", nqn=ours.NQN)
        assert isinstance(queues, list)
        return [queue["pollux"]["ktls"] for queue in queues]

    def stop(self) -> None:
        """Ends it."""
        self.guest.run("killall -q pollux; while pidof pollux; do sleep 0.1; done")


def one_key(bench: Bench, key: Path) -> None:
    """Both sides in the guest, one or both of them by the kernel; then a host outside, which has user space."""
    guest, target = bench.guest, GuestTarget(bench, key)
    report = "/tmp/report.json"
    trid = ours.transport_id(target.address, ours.NQN)
    host = f"/tmp/pollux-perf -r '{trid}' {VERIFY} --hostnqn {HOST_NQN} --tls-psk /tmp/{key.name} --json {report}"
    for at_target, at_host in ((True, True), (True, False), (False, True), (False, False)):
        target.ask_kernel(at_target)
        before = connections(guest)
        done = guest.run(host + (" --ktls" if at_host else ""), 90)
        check(done.status == 0, f"target {at_target}, host {at_host}: {done}")
        ios = json.loads(guest.check(f"cat {report}"))["paths"][0]["ios"]
        check(ios > 100, f"target {at_target}, host {at_host}: {ios} I/Os")
        used = connections(guest) - before
        equal("connections of the kernel", used, QUEUES * (at_target + at_host))
    target.ask_kernel(True)
    options = (*VERIFY.split(), "--hostnqn", HOST_NQN, "--tls-psk", str(key))
    run = bench.programs.perf([target.address], ours.NQN, *options, "--ktls")
    while run.running() and not (shown := target.ktls()):
        pass
    equal("queues that the kernel encrypts", set(shown), {True})
    finished = run.finish(60)
    check(finished.passed, finished.explain())
    target.stop()


@case("target", "ktls", deadline_s=400)
def our_programs(bench: Bench) -> None:
    """Our target and our host in the guest: data is verified with the kernel on both sides and on either side, with the
    cipher suites of both lengths of keys."""
    keys = [bench.programs.key(f"ktls{n}", "--tls", "--length", str(n)) for n in (32, 48)]
    programs = [Path(bench.programs.path(name)) for name in PROGRAMS]
    bring(bench.guest, [*programs, *libraries(programs[0]), *keys])
    for key in keys:
        one_key(bench, key)


@case("target", "ktls/kernel", deadline_s=200)
def kernel_host(bench: Bench) -> None:
    """The kernel's host at our target, both with the kernel's TLS; and a peer that changes its keys. A kernel from 6.14 follows
    it; with an older one that connection ends with its reason, and no other."""
    key = bench.programs.key("ktls32", "--tls")
    program = Path(bench.programs.path("pollux"))
    bring(bench.guest, [program, *libraries(program), key])
    target = GuestTarget(bench, key)
    target.ask_kernel(True)
    tls = KernelTls(bench.guest)
    tls.set_keys(derived(bench, key, ours.NQN, 1))
    host = bench.initiator
    host.nqn = ours.NQN
    before = connections(bench.guest)
    bench.guest.check(host.tls_connect_script(target.address), 60)
    check(set(target.ktls()) == {True}, f"{target.ktls()}")
    equal("connections of the kernel", connections(bench.guest) - before, 2 * (1 + QUEUES))
    run = host.fio(host.device(1), "--rw=randwrite --bsrange=512-128k --size=2m --iodepth=8")
    check(run.passed, run.explain())
    identity, psk = derived(bench, key, ours.NQN, 1)
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", ":".join(map(str, target.address)), "-tls1_3", "-brief"]
        + ["-ciphersuites", "TLS_AES_128_GCM_SHA256", "-psk_identity", identity, "-psk", psk],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    assert client.stdin is not None
    try:
        wait_until("its handshake", 20, lambda: connections(bench.guest) - before == 2 * (1 + QUEUES) + 1)
        client.stdin.write(b"K\n")
        client.stdin.flush()
        if follows_keys(bench.guest):
            wait_until("the next key", 20, lambda: counter(bench.guest, "TlsRxRekeyOk") > 0)
            equal("what was received with it", counter(bench.guest, "TlsDecryptError"), 0)
        else:
            client.wait(20)
            bench.guest.check(f"until grep -q 'changes its keys (KeyUpdate)' {LOG}; do sleep 0.1; done", 20)
    finally:
        client.kill()
        client.wait()
    check(set(target.ktls()) == {True}, f"{target.ktls()}")
    host.disconnect()
    target.stop()
