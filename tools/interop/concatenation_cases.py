"""Secure concatenation with the kernel, both ways: DH-HMAC-CHAP on the admin queue brings a key, and all queues come by TLS.

The kernel has it since Linux 6.16. With an older one the cases show that either side is refused in an orderly way.
"""

import nvmet
import ours
from auth_cases import add_keys, guest_host, host, keys, secret, target_and_keys
from bench import Bench
from guest import Guest
from kernel_tls import KernelTls
from suite import case, check, equal

GROUP = "ffdhe2048"
PORT = 0
IO = ("-w", "verify", "-q", "8", "-o", "512-128k", "-t", "0.5")


def is_there(guest: Guest) -> bool:
    """Whether the guest's kernel has secure concatenation."""
    return guest.version >= (6, 16)


@case("host", "concatenation", kernel_log=(r"ctrl \d+ fatal error occurred", r"nvmet_tcp: queue \d+: TLS"))
def our_host(bench: Bench) -> None:
    """Our host at a port of the kernel that speaks TLS with whoever wants it: data is verified over the queues that have come
    with the key of the authentication."""
    files = keys(bench)
    own = secret(files["controller"])
    bench.kernel.require_keys({host(GROUP): (secret(files[GROUP]), own, GROUP)})
    KernelTls(bench.guest).set_keys()
    bench.kernel.secure_port(PORT, required=False)
    address = bench.kernel_ports[PORT]
    options = ("--hostnqn", host(GROUP), "--dhchap-key", str(files[GROUP]), "--secure-concatenation")
    if not is_there(bench.guest):
        status, output = bench.programs.identify_fails(address, nvmet.NQN, *options)
        check(status == 1 and "concatenation" in output, f"{status}, {output}")
        return
    run = bench.programs.perf([address], nvmet.NQN, *IO, *options)
    report = run.finish(30)
    check(report.passed, report.explain())
    started = bench.programs.host()
    add_keys(started.rpc, files)
    keyed = {"hostnqn": host(GROUP), "dhchap_key": GROUP, "secure_concatenation": True}
    started.attach(address, nvmet.NQN, **keyed)
    shown = started.rpc.call("bdev_nvme_get_controllers")[0]["ctrlrs"][0]["pollux"]
    equal("TLS", shown.get("tls"), True)


@case("target", "concatenation", kernel_log=(r"creating connection with|TLS|queue \d+|reset",))
def kernel_host(bench: Bench) -> None:
    """The kernel's host at a plain listener of ours: its queues come again by TLS, and data is verified."""
    target, files = target_and_keys(bench)
    # That of the key, of which `tlshd` knows no other.
    target.rpc.call("nvmf_set_config", dhchap_digests=["sha256"])
    KernelTls(bench.guest).set_keys()
    kernel = guest_host(bench, GROUP)
    more = f",concat,dhchap_secret={secret(files[GROUP])}"
    script = kernel.plain_connect_script(bench.our_ports[PORT], more)
    if not is_there(bench.guest):
        done = bench.guest.run(script)
        check(done.status != 0 and "Invalid argument" in done.output, f"{done}")
        return
    bench.guest.check(script, 40)
    queues = target.rpc.call("nvmf_subsystem_get_qpairs", nqn=ours.NQN)
    equal("queues by TLS", [queue["pollux"]["tls"] for queue in queues], [True] * 3)
    run = kernel.fio(kernel.device(1), "--rw=randwrite --bsrange=512-128k --size=2m --iodepth=8")
    check(run.passed, run.explain())
    kernel.disconnect()
