"""The kernel against itself, in one guest: shows that the harness sees what it should see."""

from bench import Bench
from guest import wait_until
from nvmet import STATES
from suite import case, check, equal

FAILED_CAPSULE = r"nvmet_tcp: failed cmd"


def connect_both(bench: Bench) -> str:
    """Connects over both paths; returns the device of namespace 1."""
    for address in bench.kernel_ports:
        bench.initiator.connect(address)
    device = bench.initiator.device(1)
    bench.initiator.wait_paths(device, 2)
    return device


@case("self", "fio-two-paths")
def fio_two_paths(bench: Bench) -> None:
    """Data survives mixed sizes, and round-robin uses both paths."""
    device = connect_both(bench)
    bench.initiator.set_policy("round-robin")
    run = bench.initiator.fio(device, "--rw=randwrite --bsrange=512-128k --size=4m --iodepth=8")
    check(run.passed, run.explain())
    idle = [path for path in bench.initiator.paths(device) if path.ios < 20]
    check(not idle, f"paths without I/O: {idle}")


@case("self", "ana-states", kernel_log=(FAILED_CAPSULE,))
def ana_states(bench: Bench) -> None:
    """Each of the five states arrives in sysfs within two seconds while fio runs."""
    device = connect_both(bench)
    run = bench.initiator.start_fio(device, "--rw=randwrite --bs=4k --size=12m --iodepth=4")
    for state in (*STATES[1:], STATES[0]):
        bench.kernel.set_ana(0, state, 1)

        def arrived(state: str = state) -> bool:
            return bench.initiator.paths(device)[0].ana_state == state

        wait_until(f"{state} in sysfs", 2, arrived, 0.05)
    done = run.finish()
    check(done.passed, done.explain())


@case("self", "fio-sees-corruption")
def fio_sees_corruption(bench: Bench) -> None:
    """Negative control: data changed behind the device is found."""
    device = connect_both(bench)
    options = "--rw=randwrite --bs=4k --size=1m --iodepth=8"
    written = bench.initiator.fio(device, f"{options} --do_verify=0")
    check(written.passed, written.explain())
    intact = bench.initiator.fio(device, f"{options} --verify_only")
    check(intact.passed, intact.explain())
    bench.kernel.corrupt_device(1)
    spoiled = bench.initiator.fio(device, f"{options} --verify_only")
    check(spoiled.found_corruption, f"corruption not found: {spoiled.explain()}")


@case("self", "namespaces-on-line")
def namespaces_on_line(bench: Bench) -> None:
    """Added, grown and removed namespaces arrive without a reconnect."""
    connect_both(bench)
    grown = bench.initiator.device(2).rsplit("/", 1)[1]
    bench.kernel.grow_namespace_2(48)
    wait_until(
        "the new size",
        5,
        lambda: bench.guest.check(f"cat /sys/block/{grown}/size") == str(48 * 2048),
    )
    bench.kernel.add_namespace(3, "/dev/ram0")
    bench.initiator.device(3)
    bench.kernel.enable_namespace(3, False)
    wait_until("namespace 3 to vanish", 5, lambda: 3 not in bench.initiator.namespaces())


@case("self", "dropped-packets")
def dropped_packets(bench: Bench) -> None:
    """Dropping a path's packets is silent, and ends when it is told to."""
    guest = bench.guest
    ping = "ping -c 1 -W 2 127.1.0.2 > /dev/null && ping -c 1 -W 2 127.2.0.2 > /dev/null"
    equal("ping before", guest.run(ping).status, 0)
    guest.drop_packets(0, True)
    equal("ping of the dropped path", guest.run("ping -c 1 -W 1 127.1.0.2").status, 1)
    equal("ping of the other", guest.run("ping -c 1 -W 1 127.2.0.2").status, 0)
    equal("carrier", guest.check("cat /sys/class/net/eth0/carrier"), "1")
    guest.drop_packets(0, False)
    equal("ping after", guest.run(ping).status, 0)
    guest.set_link(1, False)
    wait_until("the carrier to go", 3, lambda: guest.check("cat /sys/class/net/eth1/carrier") == "0")
    guest.set_link(1, True)
    wait_until("the carrier", 3, lambda: guest.check("cat /sys/class/net/eth1/carrier") == "1")
