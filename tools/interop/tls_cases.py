"""TLS 1.3 with the kernel, both ways: data, and who is not let in.

Keys have 32 bytes. The handshakes of this kernel are made by `tlshd` 1.0, which knows no other hash function than SHA-256 for a
pre-shared key; the versions that know SHA-384 want a newer kernel.
"""

import json
import re
from pathlib import Path

import nvmet
import ours
from bench import Bench
from kernel_host import HOST_NQN, KernelHost
from kernel_tls import KernelTls
from suite import case, check, equal

SECURE = 1  # the path whose listener speaks nothing but TLS
PLAIN = 0
IO = ("-w", "verify", "-q", "8", "-o", "512-128k", "-t", "0.5")


def keys(bench: Bench) -> tuple[Path, Path]:
    """A key, and a wrong one."""
    return bench.programs.key("right", "--tls"), bench.programs.key("wrong", "--tls")


def derived(bench: Bench, path: Path, nqn: str, version: int) -> tuple[str, str]:
    """Identity and TLS PSK of a key of the host: the kernel wants them derived."""
    names = ("--nqn", HOST_NQN, "--subsystem", nqn, "--identity", str(version))
    status, output = bench.programs.pollux("key", "derive", str(path), *names)
    equal("exit status of pollux key derive", status, 0)
    identity, key = output.strip().splitlines()
    return identity, key


@case("host", "tls", kernel_log=(r"nvmet_tcp: unexpected pdu type 22", r"nvmet_tcp: queue \d+: TLS Alert"))
def kernel_target(bench: Bench) -> None:
    """Our host at a secure port of the kernel: data is verified. With a wrong key or without TLS nobody comes in, and TLS
    finds nothing at a plain port."""
    tls = KernelTls(bench.guest)
    bench.kernel.secure_port(SECURE)
    right, wrong = keys(bench)
    tls.set_keys(derived(bench, right, nvmet.NQN, 0))
    named = ("--hostnqn", HOST_NQN)
    for path, key, wanted in (
        (SECURE, wrong, "TLS: the peer ended the connection during the handshake"),
        (SECURE, None, "closed by the peer"),
        (PLAIN, right, "TLS: the peer ended the connection during the handshake"),
    ):
        more = ("--tls-psk", str(key)) if key else ()
        status, output = bench.programs.identify_fails(
            bench.kernel_ports[path], nvmet.NQN, *named, *more
        )
        check(status == 1 and wanted in output, f"path {path}, {key}: {status}, {output}")
    address = bench.kernel_ports[SECURE]
    # GnuTLS ends a handshake whose first identity it does not know, and our host offers that of version 0 first.
    for version in (0, 1):
        tls.set_keys(derived(bench, right, nvmet.NQN, version))
        run = bench.programs.perf([address], nvmet.NQN, *IO, *named, "--tls-psk", str(right))
        report = run.finish(30)
        check(report.passed, f"version {version}: {report.explain()}")


@case("host", "tls/discovery")
def kernel_discovery(bench: Bench) -> None:
    """Our host asks the discovery service of a secure port of the kernel by TLS, with the key that it has for discovery, and
    attaches what it lists."""
    tls = KernelTls(bench.guest)
    bench.kernel.secure_port(SECURE)
    right, _ = keys(bench)
    tls.set_keys(*(derived(bench, right, nqn, 0) for nqn in (nvmet.NQN, ours.DISCOVERY_NQN)))
    named = ("--hostnqn", HOST_NQN, "--tls-psk", str(right))
    address = bench.kernel_ports[SECURE]
    trid = ours.transport_id(address, ours.DISCOVERY_NQN)
    status, output = bench.programs.pollux("discover", "-r", trid, "--json", *named)
    equal(f"exit status of pollux discover: {output}", status, 0)
    found = [one for one in json.loads(output)["records"] if one["subnqn"] == nvmet.NQN]
    listed = [(one["traddr"], one["trsvcid"], one["sectype"]) for one in found]
    equal("the subsystem", listed, [(address[0], str(address[1]), "tls13")])
    report = bench.programs.perf([address], nvmet.NQN, *IO, *named).finish(30)
    check(report.passed, report.explain())


def secure_target(bench: Bench, key: Path) -> None:
    """A target of ours where the host of the guest has a key, with a plain listener and a secure one."""
    target = bench.programs.target(bench.our_ports[:1], "memory", managed=True)
    target.addresses = list(bench.our_ports)
    target.rpc.call("keyring_file_add_key", name="key", path=str(key))
    target.rpc.call("nvmf_subsystem_allow_any_host", nqn=ours.NQN, allow_any_host=False)
    target.rpc.call("nvmf_subsystem_add_host", nqn=ours.NQN, host=HOST_NQN, psk="key")
    target.add_listener(SECURE, secure_channel=True)


@case(
    "target",
    "tls",
    kernel_log=(
        r"queue 0: TLS handshake complete, error",
        r"queue 0: (failed to receive icresp|receive failed)",
        r"TLS Alert",
    ),
)
def kernel_host(bench: Bench) -> None:
    """The kernel's host at a secure listener of ours, with identities of both versions: data is verified. With a wrong key
    or without TLS nobody comes in, and TLS finds nothing at a plain listener."""
    tls = KernelTls(bench.guest)
    right, wrong = keys(bench)
    secure_target(bench, right)
    host = bench.initiator
    for key, path, connect in (
        (wrong, SECURE, host.tls_connect_script),
        (right, SECURE, host.plain_connect_script),
        (right, PLAIN, host.tls_connect_script),
    ):
        tls.set_keys(derived(bench, key, ours.NQN, 0))
        done = bench.guest.run(connect(bench.our_ports[path]))
        wanted = r"Permission denied|reset by peer|timed out|Input/output error"
        check(done.status != 0 and re.search(wanted, done.output), f"{key}, path {path}: {done}")
    for version in (0, 1):
        tls.set_keys(derived(bench, right, ours.NQN, version))
        bench.guest.check(host.tls_connect_script(bench.our_ports[SECURE]))
        run = host.fio(host.device(1), "--rw=randwrite --bsrange=512-128k --size=2m --iodepth=8")
        check(run.passed, run.explain())
        host.disconnect()


@case("target", "tls/discovery")
def discovery_by_tls(bench: Bench) -> None:
    """The kernel's host asks our discovery service by TLS, with the key that it has for discovery, and connects to what it
    lists. Its nvme-cli knows nothing of TLS: it reads the log page of the controller that the kernel has connected to."""
    tls = KernelTls(bench.guest)
    right, _ = keys(bench)
    secure_target(bench, right)
    tls.set_keys(*(derived(bench, right, nqn, 0) for nqn in (ours.NQN, ours.DISCOVERY_NQN)))
    discovery, host = KernelHost(bench.guest, ours.DISCOVERY_NQN), bench.initiator
    address = bench.our_ports[SECURE]
    bench.guest.check(discovery.tls_connect_script(address))
    name = discovery.controllers()[0]
    log = bench.guest.check(f"nvme get-log /dev/{name} --log-id=0x70 --log-len=8192 --raw-binary | xxd -p")
    page = bytes.fromhex("".join(log.split()))
    count = int.from_bytes(page[8:16], "little")
    entries = [page[1024 * (1 + index) :][:1024] for index in range(count)]

    def text(entry: bytes, at: int, length: int) -> str:
        return entry[at : at + length].split(b"\0")[0].decode().strip()

    listed = {(text(one, 512, 256), text(one, 32, 32)) for one in entries if text(one, 256, 256) == ours.NQN}
    check((address[0], str(address[1])) in listed, f"{listed}")
    host.nqn = ours.NQN
    bench.guest.check(host.tls_connect_script(address))
    run = host.fio(host.device(1), "--rw=randwrite --bsrange=512-128k --size=2m --iodepth=8")
    check(run.passed, run.explain())
    host.disconnect()
