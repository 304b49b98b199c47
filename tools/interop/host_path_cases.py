"""Our host against the kernel's target: paths, namespaces and hosts that come and go."""

import time

import nvmet
from bench import Bench
from guest import wait_until
from host_cases import FAILED_CAPSULE, VERIFY, start
from network import Network
from nvmet import STATES
from ours import MIB, OurShell, PerfReport, PerfRun
from suite import case, check, equal

KEEP_ALIVE_EXPIRED = r"nvmet: ctrl \d+ keep-alive timer .* expired!"
FATAL = r"nvmet: ctrl \d+ fatal error occurred!"
# A connection that its host had given up before the target took it (-107: ENOTCONN), or before it could be sent
# the answer to its ICReq, which the target then looks at once more (state 3: failed).
GIVEN_UP = (
    r"nvmet_tcp: failed to allocate queue, error -107",
    r"nvmet_tcp: queue \d+: received icreq pdu in state 3",
)
PROVOKED = (FAILED_CAPSULE, KEEP_ALIVE_EXPIRED, FATAL, *GIVEN_UP)
HOST_NQN = "nqn.2026-01.io.pollux:guest-of-honour"


def finish(bench: Bench, run: PerfRun) -> PerfReport:
    """Ends a `verify` that does I/O still, or again, and must have gone well."""
    bench.kernel.wait_io(run.running)
    report = run.end(20)
    check(report.passed, report.explain())
    return report


def set_all(bench: Bench, path: int, state: str) -> None:
    """Sets both groups on a port."""
    bench.kernel.set_ana(path, state, 1, 2)


@case("host", "ana-non-optimized", "non-optimized", kernel_log=PROVOKED)
@case("host", "ana-inaccessible", "inaccessible", kernel_log=PROVOKED)
@case("host", "ana-persistent-loss", "persistent-loss", kernel_log=PROVOKED)
@case("host", "ana-change", "change", kernel_log=PROVOKED)
def ana_one_path(bench: Bench, state: str) -> None:
    """The path that carries the I/O leaves its state: the other takes over, then it fails back."""
    run = start(bench)
    set_all(bench, 0, state)
    time.sleep(0.8)
    set_all(bench, 0, "optimized")
    time.sleep(0.5)
    set_all(bench, 1, "inaccessible")
    report = finish(bench, run)
    check(min(report.ios) > 0, f"the paths carried {report.ios}")


@case("host", "ana-rotation", deadline_s=150, kernel_log=PROVOKED)
def ana_rotation(bench: Bench) -> None:
    """All five states on both paths in turn, with one path usable at any time."""
    run = start(bench, "--policy", "active_active")
    for state in (*STATES[1:], "optimized"):
        for path in (0, 1):
            set_all(bench, path, state)
            time.sleep(0.1)
            set_all(bench, path, "optimized")
            time.sleep(0.1)
    finish(bench, run)


@case("host", "ana-all-inaccessible", "inaccessible", kernel_log=PROVOKED)
@case("host", "ana-all-change", "change", kernel_log=PROVOKED)
def ana_all_paths(bench: Bench, state: str) -> None:
    """No path is usable for less than ANATT: I/O waits, none fails."""
    run = start(bench)
    for path in (0, 1):
        set_all(bench, path, state)
    time.sleep(2)
    for path in (1, 0):
        set_all(bench, path, "optimized")
    report = finish(bench, run)
    gap_s = report.longest_gap_s
    check(gap_s > 1, f"the longest gap was {gap_s:.2f} s: was I/O done on inaccessible paths?")


@case("host", "ana-anatt-passes", kernel_log=PROVOKED)
def ana_anatt(bench: Bench) -> None:
    """No path becomes usable within ANATT (10 s): I/O fails then, not before."""
    report = unusable(bench, "inaccessible", 13)
    failed_s = report.longest_failure_s
    check(9 < failed_s < 12, f"I/O failed after {failed_s:.1f} s")
    check(report.longest_gap_s > 9, f"the outage shows as a gap of {report.longest_gap_s:.1f} s")


@case("host", "ana-all-lost", kernel_log=PROVOKED)
def ana_all_lost(bench: Bench) -> None:
    """Persistent loss on every path: there is nothing to wait for."""
    report = unusable(bench, "persistent-loss", 3)
    failed_s = report.longest_failure_s
    check(failed_s < 6, f"I/O failed only after {failed_s:.1f} s: it waited for ANATT (10 s)")


def unusable(bench: Bench, state: str, seconds: float) -> PerfReport:
    """A run during which every path goes into a state, and stays there so long, that I/O fails in the end."""
    run = start(bench)
    for path in (0, 1):
        set_all(bench, path, state)
    time.sleep(seconds)
    report = run.end(15)
    check(report.errors > 0, f"no I/O failed: {report.explain()}")
    return report


def shell(bench: Bench) -> OurShell:
    """A host with one path."""
    return bench.programs.shell(bench.kernel_ports[:1], nvmet.NQN)


@case("host", "namespace-added")
def namespace_added(bench: Bench) -> None:
    """A volume appears by itself and takes I/O."""
    host = shell(bench)
    equal("volumes", sorted(host.volumes()), ["diskn1", "diskn2"])
    bench.kernel.add_namespace(3, bench.kernel.device(3))
    wait_until("a third volume", 5, lambda: "diskn3" in host.volumes())
    host.run("write diskn3 0 8")


@case("host", "namespace-resized")
def namespace_resized(bench: Bench) -> None:
    """A volume grows."""
    host = shell(bench)
    equal("size before", host.volumes()["diskn2"], bench.kernel.size_mib * MIB)
    bench.kernel.grow_namespace_2(24)
    wait_until("the new size", 5, lambda: host.volumes()["diskn2"] == 24 * MIB)
    host.run(f"write diskn2 {24 * MIB // 512 - 8} 8")


@case("host", "namespace-disabled", kernel_log=PROVOKED)
def namespace_disabled(bench: Bench) -> None:
    """What is behind a volume vanishes: its I/O fails, the other goes on; then it returns."""
    host = shell(bench)
    bench.kernel.enable_namespace(2, False)
    answer = host.ask("read diskn2 0 8")
    check(answer.startswith("failed"), f"a read of a namespace that is not there: {answer[:80]}")
    host.run("read diskn1 0 8")
    bench.kernel.enable_namespace(2, True)
    wait_until("namespace 2 to return", 5, lambda: host.ask("read diskn2 0 8").startswith("ok"))


@case("host", "port-removed-and-added", kernel_log=PROVOKED)
def port_removed(bench: Bench) -> None:
    """The port under load goes and comes back, then the other goes: I/O only moves."""
    run = start(bench)
    bench.kernel.close_port(0)
    time.sleep(1)
    bench.kernel.open_port(0)
    time.sleep(3)
    bench.kernel.close_port(1)
    report = finish(bench, run)
    check(min(report.ios) > 0, f"the paths carried {report.ios}")


@case("host", "link-cut-10-s", deadline_s=90, kernel_log=PROVOKED)
def link_cut(bench: Bench) -> None:
    """Ten seconds without the link of one path: the other carries on."""
    run = start(bench, "--kato", "4000")
    bench.guest.set_link(0, False)
    time.sleep(10)
    bench.guest.set_link(0, True)
    report = finish(bench, run)
    check(report.ios[1] > 0, f"the paths carried {report.ios}")


@case("host", "packets-dropped", deadline_s=90, kernel_log=PROVOKED)
def packets_dropped(bench: Bench) -> None:
    """A path goes silent: keep-alive notices, I/O in flight is repeated on the other."""
    run = start(bench, "--kato", "3000")
    bench.guest.drop_packets(0, True)
    time.sleep(6)
    bench.guest.drop_packets(0, False)
    report = finish(bench, run)
    check(report.ios[1] > 0, f"the paths carried {report.ios}")


@case("host", "target-frozen", deadline_s=90, kernel_log=PROVOKED)
def target_frozen(bench: Bench) -> None:
    """The whole target stands still for longer than KATO: I/O waits for its return."""
    run = start(bench, "--kato", "3000")
    bench.guest.freeze()
    time.sleep(6)
    bench.guest.thaw()
    finish(bench, run)


@case("host", "stale-write", (), "answered", kernel_log=PROVOKED)
@case("host", "stale-write-fenced", ("--kato", "1000", "--cqt", "200"), "closed", kernel_log=PROVOKED)
def stale_write(bench: Bench, options: tuple[str, ...], late: str) -> None:
    """A write is lost with its path and sent again on the other, a newer one follows, and then the first copy is delivered.
    This target promises no CQT, so that nothing is fenced unless one is set: the newer write is lost."""
    network = Network(bench.kernel_ports[0])
    try:
        host = bench.programs.shell([network.address, bench.kernel_ports[1]], nvmet.NQN, *options)
        host.run("write-zeroes diskn1 7 1")
        line = network.lines[1]
        line.holds.set()
        host.begin("write diskn1 7 1")
        check(line.held.wait(15), "the write did not go by the first path")
        network.cut()
        equal("the write", host.answer(), "ok")
        host.run("write-zeroes diskn1 7 1")
        line.release()
        equal("what was delivered late", line.late.get(timeout=15), late)
        is_newer = host.run("read diskn1 7 1").strip("0") == ""
        equal("the newer write is there", is_newer, late == "closed")
    finally:
        network.close()


@case("host", "idle-keep-alive")
def idle_keep_alive(bench: Bench) -> None:
    """A connection without I/O outlives KATO, 2 s here (an expiry would be in the kernel's log)."""
    host = shell(bench)
    time.sleep(6)
    host.run("flush diskn1")


@case("host", "host-not-allowed", kernel_log=(FAILED_CAPSULE, r"nvmet: connect by host"))
def host_not_allowed(bench: Bench) -> None:
    """A stranger is refused in good time; the host that is named gets in."""
    bench.kernel.allow_hosts(HOST_NQN)
    refused = bench.programs.perf(bench.kernel_ports, nvmet.NQN, *VERIFY, "-t", "1").finish(15)
    equal("exit status", refused.status, 1)
    allowed = bench.programs.perf(
        bench.kernel_ports, nvmet.NQN, *VERIFY, "-t", "1", "--hostnqn", HOST_NQN
    )
    report = allowed.finish(15)
    check(report.passed, report.explain())


@case("host", "unknown-subsystem", kernel_log=(FAILED_CAPSULE, r"nvmet: connect request"))
def unknown_subsystem(bench: Bench) -> None:
    """The refusal of Connect is reported, not a timeout."""
    status, output = bench.programs.identify_fails(bench.kernel_ports[0], f"{nvmet.NQN}-not")
    equal("exit status", status, 1)
    check(len(output.strip().splitlines()) == 1, f"not one line: {output!r}")


@case("host", "discovery-log-changes", kernel_log=PROVOKED)
def discovery_log_changes(bench: Bench) -> None:
    """A subsystem that leaves a port leaves the port's log, which counts its changes."""
    bench.kernel.keep_port_open(0)

    def read() -> tuple[int, bool]:
        log = bench.programs.discovery_log(bench.kernel_ports[0])
        return log.generation, any(one["subnqn"] == nvmet.NQN for one in log.records)

    generation, listed = read()
    check(listed, "the subsystem is not in the log")
    for change, wanted in ((bench.kernel.close_port, False), (bench.kernel.open_port, True)):
        change(0)
        newer, listed = read()
        equal("the subsystem is listed", listed, wanted)
        check(newer > generation, f"generation {newer} after {generation}")
        generation = newer
