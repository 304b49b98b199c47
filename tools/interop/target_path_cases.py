"""The kernel's host against our target: paths, namespaces and the target itself come and go."""

import time

import ours
from bench import Bench, free_port
from guest import wait_until
from kernel_host import HOST_NQN, Fio, FioRun, KernelHost
from ours import MIB, NAMESPACE_MIB
from suite import case, check, equal
from target_cases import connected, controller

# What the kernel's host says when a connection is lost, and when there is no path for a while.
LOST = (
    r"nvme nvme\d+: ",
    r"nvme\d+(c\d+)?n\d+: ",
    r"(I/O|timeout) .*nvme",
)
# Read-ahead that meets an ANA change is not sent again: the kernel logs it and reads the blocks once they are wanted.
READ_AHEAD = (r"nvme\d+c\d+n\d+: I/O Cmd\(0x2\) @ LBA .* \(sct 0x3 / sc 0x[123]\)",)
LOAD = "--rw=randwrite --bs=4k --size=8m --iodepth=8 --time_based=1"


def load(bench: Bench, device: str, seconds: int) -> FioRun:
    """Starts verified writes that go on for this long."""
    return bench.initiator.start_fio(device, f"{LOAD} --runtime={seconds}", seconds + 60)


def finish(run: FioRun) -> Fio:
    """Waits for a fio that must have found nothing wrong."""
    done = run.finish()
    check(done.passed, done.explain())
    return done


def wait_ana(bench: Bench, device: str, path: int, state: str) -> None:
    """Waits for the state in sysfs; the kernel reads it after a notice, or after a status of an I/O that tells of it."""
    wait_until(
        f"{state} of path {path} in sysfs",
        10,
        lambda: bench.initiator.paths(device)[path].ana_state == state,
        0.02,
    )


@case("target", "ana-non-optimized", "non_optimized")
@case("target", "ana-inaccessible", "inaccessible")
def ana_one_path(bench: Bench, state: str) -> None:
    """A change on one path and back is in sysfs, fio notices nothing."""
    target, device = connected(bench, managed=True)
    run = load(bench, device, 3)
    for wanted in (state, "optimized"):
        target.set_ana(0, wanted)
        wait_ana(bench, device, 0, ours.kernel_state(wanted))
    finish(run)


@case("target", "ana-moves-io")
def ana_moves_io(bench: Bench) -> None:
    """All I/O goes where the optimized path is."""
    target, device = connected(bench, managed=True)
    run = load(bench, device, 10)
    for away, towards in ((0, 1), (1, 0)):
        target.set_ana(towards, "optimized")
        target.set_ana(away, "non_optimized")
        wait_ana(bench, device, away, "non-optimized")
        # Those that were on their way are counted by then.
        time.sleep(0.2)
        before = [path.ios for path in bench.initiator.paths(device)]
        after = wait_until(
            f"I/Os by path {towards}, which is optimized",
            8,
            lambda: (now := [path.ios for path in bench.initiator.paths(device)])[towards]
            > before[towards] + 50
            and now,
        )
        ios = [new - old for old, new in zip(before, after, strict=True)]
        check(ios[away] == 0, f"I/Os with path {towards} optimized: {ios}")
    finish(run)


@case("target", "ana-all-inaccessible")
def ana_all_paths(bench: Bench) -> None:
    """Two seconds without a usable path: I/O is queued, none fails."""
    target, device = connected(bench, managed=True)
    run = load(bench, device, 4)
    for path in (0, 1):
        target.set_ana(path, "inaccessible")
    wait_ana(bench, device, 1, "inaccessible")
    time.sleep(0.3)
    disk = device.rsplit("/", 1)[1]
    before = bench.initiator.ios(disk)
    time.sleep(1.5)
    equal("I/Os done without a path", bench.initiator.ios(disk) - before, 0)
    for path in (1, 0):
        target.set_ana(path, "optimized")
    finish(run)


@case("target", "gateway")
def gateway(bench: Bench) -> None:
    """Between the kernel's host and a target is a gateway. The paths behind it come and go, those in front stay, and at the
    end one in front goes as well: no I/O fails."""
    ports = [("127.0.0.1", free_port("127.0.0.1")) for _ in range(2)]
    behind = bench.programs.target(ports, "memory", managed=True)
    front = bench.programs.gateway(bench.our_ports, behind)
    for address in bench.our_ports:
        bench.initiator.connect(address, "")
    device = bench.initiator.device(1)
    bench.initiator.wait_paths(device, 2)
    run = load(bench, device, 6)
    for turn in range(10):
        behind.set_ana(turn % 2, "inaccessible")
        time.sleep(0.1)
        behind.set_ana(turn % 2, "optimized")
    behind.remove_listener(0)
    time.sleep(0.5)
    behind.add_listener(0)
    front.set_ana(0, "inaccessible")
    wait_ana(bench, device, 0, "inaccessible")
    finish(run)


@case("target", "ana-storm")
def ana_storm(bench: Bench) -> None:
    """Forty changes in quick succession, one path usable at any time; the last state holds."""
    target, device = connected(bench, managed=True)
    run = load(bench, device, 4)
    for turn in range(20):
        path = turn % 2
        target.set_ana(path, ("inaccessible", "non_optimized")[turn // 2 % 2])
        time.sleep(0.05)
        target.set_ana(path, "optimized")
        time.sleep(0.05)
    target.set_ana(1, "non_optimized")
    wait_ana(bench, device, 0, "optimized")
    wait_ana(bench, device, 1, "non-optimized")
    finish(run)


@case("target", "listener-removed-and-added", kernel_log=LOST)
def listener_removed(bench: Bench) -> None:
    """The path goes and comes back by the kernel's reconnect; fio notices nothing."""
    target, device = connected(bench, managed=True)
    run = load(bench, device, 7)
    target.remove_listener(0)
    bench.initiator.wait_paths(device, 1)
    target.add_listener(0)
    bench.initiator.wait_paths(device, 2, 15)
    finish(run)


@case("target", "killed-and-restarted", kernel_log=LOST)
def killed_and_restarted(bench: Bench) -> None:
    """SIGKILL under load; a new target on the same file goes on where the old one was."""
    backing = bench.backing_file(NAMESPACE_MIB)
    target, device = connected(bench, f"file:{backing}")
    run = load(bench, device, 7)
    target.process.kill()
    time.sleep(1)
    bench.programs.target(bench.our_ports, f"file:{backing}")
    bench.initiator.wait_paths(device, 2, 20)
    finish(run)


@case("target", "terminated", kernel_log=LOST)
def terminated(bench: Bench) -> None:
    """SIGTERM with connections open ends the target with status 0."""
    target, _ = connected(bench)
    equal("exit status", target.process.terminate(), 0)


@case("target", "namespace-added-and-removed", kernel_log=LOST)
def namespace_added(bench: Bench) -> None:
    """A namespace appears and vanishes by notice alone."""
    target, device = connected(bench, managed=True)
    target.create_bdev("bdev2", "memory")
    target.add_namespace(2)
    added = bench.initiator.device(2, 5)
    run = bench.initiator.fio(added, "--rw=randwrite --bs=4k --size=1m --iodepth=8")
    check(run.passed, run.explain())
    target.remove_namespace(2)
    wait_until("namespace 2 to vanish", 5, lambda: 2 not in bench.initiator.namespaces())
    run = bench.initiator.fio(device, "--rw=randwrite --bs=4k --size=1m --iodepth=8")
    check(run.passed, run.explain())


@case("target", "namespace-resized")
def namespace_resized(bench: Bench) -> None:
    """The kernel sees the new size by notice alone."""
    target, device = connected(bench, "null", managed=True)
    target.resize_namespace(1, 48)
    wait_until(
        "the new size",
        5,
        lambda: bench.guest.check(f"blockdev --getsize64 {device}") == str(48 * MIB),
    )


@case("target", "rescan")
def rescan(bench: Bench) -> None:
    """A rescan by hand finds the same namespaces."""
    _, _ = connected(bench, "memory", "null")
    bench.initiator.nvme(f"ns-rescan {controller(bench)}")
    equal("NSIDs", sorted(bench.initiator.namespaces()), [1, 2])


FILL = """
set -e
mount -t ext4 {device} /mnt
for i in $(seq 1 40); do head -c $((i * 4001)) /dev/urandom > /mnt/file$i; done
mkdir /mnt/more
cp /mnt/file3* /mnt/more
rm /mnt/file5
cd /mnt && find . -type f -exec sha256sum {{}} + | sort > /tmp/before && cd /
sync
umount /mnt"""
COMPARE = """
set -e
/usr/sbin/e2fsck -fn {device}
mount -t ext4 {device} /mnt
cd /mnt && find . -type f -exec sha256sum {{}} + | sort > /tmp/after && cd /
umount /mnt
cmp /tmp/before /tmp/after"""


@case("target", "file-system", False)
@case("target", "file-system-over-ana-changes", True, kernel_log=READ_AHEAD)
def file_system(bench: Bench, changes: bool) -> None:
    """Made, filled, checked, and the same after a remount over a new connection."""
    target, device = connected(bench, managed=changes)
    bench.guest.check(f"/usr/sbin/mke2fs -q -t ext4 {device}")
    job = bench.guest.start(FILL.format(device=device), 40)
    while changes and job.running():
        for path, state in ((0, "inaccessible"), (0, "optimized"), (1, "inaccessible")):
            target.set_ana(path, state)
            time.sleep(0.1)
        target.set_ana(1, "optimized")
    filled = job.wait()
    check(filled.status == 0, f"filling: {filled.output[-300:]}")
    bench.initiator.disconnect()
    bench.initiator.connect(bench.our_ports[1])
    again = bench.initiator.device(1)
    compared = bench.guest.run(COMPARE.format(device=again), 40)
    check(compared.status == 0, f"checking: {compared.output[-300:]}")


@case("target", "blkdiscard", "")
@case("target", "blkdiscard-zero", "-z")
def blkdiscard(bench: Bench, option: str) -> None:
    """The first half reads as zeroes, the second half is as it was."""
    backing = bench.backing_file(NAMESPACE_MIB)
    _, device = connected(bench, f"file:{backing}")
    half = 4 * MIB
    bench.guest.check(
        f"tr '\\0' x < /dev/zero | dd of={device} bs=1M count=8 iflag=fullblock oflag=direct status=none"
    )
    bench.guest.check(f"/usr/sbin/blkdiscard {option} -o 0 -l {half} {device}")
    bench.guest.check(
        f"dd if={device} bs=1M count=4 iflag=direct status=none of=/tmp/found\n"
        f"head -c {half} /dev/zero | cmp - /tmp/found\nrm /tmp/found"
    )
    found = backing.read_bytes()[: 2 * half]
    check(found[:half] == bytes(half), "the first half of the file is not zero")
    check(found[half:] == b"x" * half, "the second half of the file has changed")


@case("target", "keep-alive")
def keep_alive(bench: Bench) -> None:
    """Idle for three times KATO: the connection is the same as before."""
    target, device = connected(bench, options="--keep-alive-tmo=2", paths=1, managed=True)
    names = bench.initiator.controllers()
    time.sleep(6)
    equal("controllers", bench.initiator.controllers(), names)
    equal("state", bench.initiator.controller_state(names[0]), "live")
    equal("controllers at the target", target.controllers(), 1)
    bench.initiator.nvme(f"flush {device}")


@case("target", "keep-alive-expires", kernel_log=LOST)
def keep_alive_expires(bench: Bench) -> None:
    """A host that stands still for longer than KATO is dropped, and comes back when it goes on."""
    target, device = connected(bench, options="--keep-alive-tmo=2", paths=1, managed=True)
    bench.guest.freeze()
    wait_until("the target to drop the controller", 10, lambda: target.controllers() == 0)
    bench.guest.thaw()
    bench.initiator.wait_paths(device, 1, 20)
    run = bench.initiator.fio(device, "--rw=randwrite --bs=4k --size=1m --iodepth=8")
    check(run.passed, run.explain())


@case("target", "link-cut", deadline_s=90, kernel_log=LOST)
def link_cut(bench: Bench) -> None:
    """A path without link for six seconds: the other carries on, the first comes back."""
    _, device = connected(bench, options="--keep-alive-tmo=2")
    run = load(bench, device, 8)
    bench.guest.set_link(0, False)
    time.sleep(6)
    bench.guest.set_link(0, True)
    finish(run)
    bench.initiator.wait_paths(device, 2, 20)


@case("target", "packets-dropped", deadline_s=90, kernel_log=LOST)
def packets_dropped(bench: Bench) -> None:
    """A path that goes silent: the kernel repeats on the other what was in flight."""
    _, device = connected(bench, options="--keep-alive-tmo=2")
    bench.initiator.set_policy("round-robin")
    run = load(bench, device, 8)
    bench.guest.drop_packets(1, True)
    time.sleep(6)
    bench.guest.drop_packets(1, False)
    finish(run)
    bench.initiator.wait_paths(device, 2, 20)


@case("target", "host-not-allowed", kernel_log=LOST)
def host_not_allowed(bench: Bench) -> None:
    """A stranger is refused, the host that is named gets in."""
    target = bench.programs.target(bench.our_ports, "memory", managed=True)
    target.allow_hosts("nqn.2026-01.io.pollux:somebody-else")
    refused = bench.guest.run("nvme " + bench.initiator.connect_arguments(bench.our_ports[0]))
    check(refused.status != 0, "the connection was accepted")
    said = bench.guest.check("dmesg | tail -n 4")
    check("is not allowed, hostnqn" in said, f"the kernel was told another reason: {said}")
    equal("controllers", target.controllers(), 0)
    target.allow_hosts(HOST_NQN)
    bench.initiator.connect(bench.our_ports[0])
    bench.initiator.device(1)


@case("target", "unknown-subsystem", kernel_log=LOST)
def unknown_subsystem(bench: Bench) -> None:
    """The kernel is told which field of Connect was wrong."""
    bench.programs.target(bench.our_ports, "memory")
    stranger = KernelHost(bench.guest, f"{ours.NQN}-not")
    refused = bench.guest.run("nvme " + stranger.connect_arguments(bench.our_ports[0]))
    check(refused.status != 0, "the connection was accepted")
    said = bench.guest.check("dmesg | tail -n 4")
    wanted = f'Connect Invalid Data Parameter, subsysnqn "{stranger.nqn}"'
    check(wanted in said, f"no {wanted!r} in: {said}")


@case("target", "controller-reset")
def controller_reset(bench: Bench) -> None:
    """A reset of each controller under load."""
    _, device = connected(bench)
    run = load(bench, device, 3)
    for name in bench.initiator.controllers():
        bench.initiator.nvme(f"reset /dev/{name}")
    bench.initiator.wait_paths(device, 2)
    finish(run)


@case("target", "disconnect-leaves-nothing")
def disconnect(bench: Bench) -> None:
    """After a disconnect the target has no controller left."""
    target, _ = connected(bench, managed=True)
    equal("controllers", target.controllers(), 2)
    bench.initiator.disconnect()
    wait_until("no controller at the target", 5, lambda: target.controllers() == 0)
