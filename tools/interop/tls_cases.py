"""TLS 1.3 with the kernel, both ways: data, and who is not let in.

Keys have 32 bytes. The handshakes of this kernel are made by `tlshd` 1.0, which knows no other hash function than SHA-256 for a
pre-shared key; the versions that know SHA-384 want a newer kernel.
"""

import re
from pathlib import Path

import nvmet
import ours
from bench import Bench
from kernel_host import HOST_NQN
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
    # GnuTLS ends a handshake whose first identity it does not know, and our host offers that of version 0 first.
    tls.set_keys(*(derived(bench, right, nvmet.NQN, version) for version in (0, 1)))
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
    run = bench.programs.perf([address], nvmet.NQN, *IO, *named, "--tls-psk", str(right))
    report = run.finish(30)
    check(report.passed, report.explain())


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
    target = bench.programs.target(bench.our_ports[:1], "memory", managed=True)
    target.addresses = list(bench.our_ports)
    target.rpc.call("keyring_file_add_key", name="key", path=str(right))
    target.rpc.call("nvmf_subsystem_allow_any_host", nqn=ours.NQN, allow_any_host=False)
    target.rpc.call("nvmf_subsystem_add_host", nqn=ours.NQN, host=HOST_NQN, psk="key")
    target.add_listener(SECURE, secure_channel=True)
    host = bench.initiator
    for key, path, connect in (
        (wrong, SECURE, host.tls_connect_script),
        (right, SECURE, host.plain_connect_script),
        (right, PLAIN, host.tls_connect_script),
    ):
        tls.set_keys(derived(bench, key, ours.NQN, 0))
        done = bench.guest.run(connect(bench.our_ports[path]))
        wanted = r"Permission denied|reset by peer|timed out"
        check(done.status != 0 and re.search(wanted, done.output), f"{key}, path {path}: {done}")
    for version in (0, 1):
        tls.set_keys(derived(bench, right, ours.NQN, version))
        bench.guest.check(host.tls_connect_script(bench.our_ports[SECURE]))
        run = host.fio(host.device(1), "--rw=randwrite --bsrange=512-128k --size=2m --iodepth=8")
        check(run.passed, run.explain())
        host.disconnect()
