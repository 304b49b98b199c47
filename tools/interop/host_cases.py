"""Our host against the kernel's target: what is read, verified data, and single commands."""

import re

import nvmet
from bench import Bench
from nvmet import STATES
from ours import DISCOVERY_NQN, MIB, OurShell, PerfReport, PerfRun
from suite import Failure, case, check, equal

FAILED_CAPSULE = r"nvmet_tcp: failed cmd"
VERIFY = ("-w", "verify", "-q", "16", "--seed", "1")
MIXED = ("-o", "512-1m", "--stride", "7", "-q", "8")
RUN_S = 1.0

VOLUME = "diskn1"  # the shell's name for namespace 1


@case("host", "identify-controller")
def identify_controller(bench: Bench) -> None:
    """Every field that configfs sets, and those that multipath builds on."""
    found = bench.programs.identify(bench.kernel_ports[0], nvmet.NQN).controller
    kernel = bench.kernel
    equal("serial number", found["sn"].strip(), kernel.attribute("serial").strip())
    equal("model", found["mn"].strip(), kernel.attribute("model").strip())
    equal("firmware", found["fr"].strip(), kernel.attribute("firmware").strip())
    equal("NQN", found["subnqn"], nvmet.NQN)
    low, high = int(kernel.attribute("cntlid_min")), int(kernel.attribute("cntlid_max"))
    check(low <= found["cntlid"] <= high, f"CNTLID {found['cntlid']} is not in {low} to {high}")
    equal("ANATT", found["anatt"], 10)
    equal("ANAGRPMAX", found["anagrpmax"], 128)
    equal("NANAGRPID", found["nanagrpid"], 128)
    equal("KAS", found["kas"], 10)
    equal("IOCCSZ", found["ioccsz"], 1028)
    equal("MAXCMD", found["maxcmd"], 1024)
    check(found["cmic"] & 0xA == 0xA, f"CMIC {found['cmic']:#x}: several controllers with ANA")


@case("host", "identify-namespaces")
def identify_namespaces(bench: Bench) -> None:
    """NSID, size, block size, group and identifiers of every namespace."""
    found = bench.programs.identify(bench.kernel_ports[1], nvmet.NQN).namespaces
    facts = {one.nsid: one for one in bench.kernel.namespaces()}
    equal("NSIDs", sorted(found), sorted(facts))
    for nsid, fact in facts.items():
        namespace = found[nsid]
        equal(f"block size of {nsid}", namespace["block_size"], 512)
        equal(f"size of {nsid}", namespace["nsze"] * 512, fact.size_bytes)
        equal(f"ANA group of {nsid}", namespace["anagrpid"], fact.group)
        equal(f"UUID of {nsid}", namespace["uuid"], fact.uuid)


@case("host", "discover")
def discover(bench: Bench) -> None:
    """The log of each port names that port and the discovery subsystem."""
    for path, (address, port) in enumerate(bench.kernel_ports):
        entries = bench.programs.discovery_log((address, port)).records
        ours = [one for one in entries if one["subnqn"] == nvmet.NQN]
        equal("entries of the subsystem", len(ours), 1)
        equal("address", (ours[0]["traddr"], ours[0]["trsvcid"]), (address, str(port)))
        equal("port id", ours[0]["portid"], path + 1)
        others = {one["subnqn"] for one in entries} - {nvmet.NQN, DISCOVERY_NQN}
        check(not others, f"unexpected entries: {others}")


@case("host", "discover-referral")
def discover_referral(bench: Bench) -> None:
    """A referral stands in the log as an entry of another discovery service."""
    bench.kernel.refer(0, "elsewhere", "192.0.2.7", "8009")
    entries = bench.programs.discovery_log(bench.kernel_ports[0]).records
    referred = [one for one in entries if one["traddr"] == "192.0.2.7"]
    equal("referrals", [one["trsvcid"] for one in referred], ["8009"])
    equal("NQN of the referral", referred[0]["subnqn"], DISCOVERY_NQN)


@case("host", "ana-log")
def ana_log(bench: Bench) -> None:
    """Every group of the ports, with the namespaces in it; the states differ by port and group."""
    bench.kernel.set_ana(0, "non-optimized", 1)
    bench.kernel.set_ana(1, "inaccessible", 2)
    for path, address in enumerate(bench.kernel_ports):
        groups = bench.programs.ana(address, nvmet.NQN)
        equal("groups", sorted(groups), [1, 2, 3])
        for group, descriptor in groups.items():
            equal(f"state of group {group}", descriptor.state, bench.kernel.ana(path, group))
            wanted = [group] if group < 3 else []
            equal(f"namespaces of group {group}", descriptor.nsids, wanted)


@case("host", "ana-log-all-states")
def ana_log_all_states(bench: Bench) -> None:
    """Each of the five states is read as configfs has it."""
    for state in STATES:
        bench.kernel.set_ana(0, state, 2)
        found = bench.programs.ana(bench.kernel_ports[0], nvmet.NQN)
        equal("state of group 2", found[2].state, state)
        equal("state of group 1", found[1].state, "optimized")


@case("host", "verify-one-path", 1, ())
@case("host", "verify-active-passive", 2, ())
@case("host", "verify-mixed-header-digest", 2, (*MIXED, "--hdgst"))
@case("host", "verify-mixed-data-digest", 2, (*MIXED, "--ddgst"))
@case("host", "verify-both-digests", 2, ("--hdgst", "--ddgst"))
@case("host", "verify-one-path-both-digests", 1, ("--hdgst", "--ddgst"))
@case("host", "verify-512", 2, ("-o", "512"))
@case("host", "verify-64k", 2, ("-o", "64k"))
@case("host", "verify-1m", 2, ("-o", "1m", "-q", "4"))
@case("host", "verify-1m-both-digests", 2, ("-o", "1m", "-q", "4", "--hdgst", "--ddgst"))
@case("host", "verify-mixed", 2, MIXED)
@case("host", "verify-mixed-both-digests", 2, (*MIXED, "--hdgst", "--ddgst"))
@case("host", "verify-sq-flow-control", 2, ("-o", "512-64k", "--sq-flow-control"))
def verify(bench: Bench, paths: int, options: tuple[str, ...]) -> None:
    """Data comes back as written. Without SQ flow control, which is how our host connects unless it is told
    otherwise, the kernel uses the SUCCESS flag and SQHD means nothing."""
    base = [option for option in VERIFY if "-q" not in options or option not in ("-q", "16")]
    run = bench.programs.perf(
        bench.kernel_ports[:paths], nvmet.NQN, *base, "-t", str(RUN_S), *options
    )
    report = run.finish(30)
    check(report.passed, report.explain())


@case("host", "verify-round-robin", "round_robin")
@case("host", "verify-queue-depth", "queue_depth")
def verify_active_active(bench: Bench, selector: str) -> None:
    """Both paths carry a fair share."""
    run = bench.programs.perf(
        bench.kernel_ports,
        nvmet.NQN,
        *VERIFY,
        *("-t", str(RUN_S), "--policy", "active_active", "--selector", selector),
    )
    report = run.finish(30)
    check(report.passed, report.explain())
    share = min(report.ios) / sum(report.ios)
    check(share > 0.2, f"the paths carried {report.ios}")


@case("host", "verify-two-reactors")
def verify_two_reactors(bench: Bench) -> None:
    """A queue pair of each path on every reactor."""
    run = bench.programs.perf(
        bench.kernel_ports, nvmet.NQN, *VERIFY, "-t", str(RUN_S), "-m", "0,1"
    )
    report = run.finish(30)
    check(report.passed, report.explain())


@case("host", "fewer-queues-than-asked-for")
def fewer_queues(bench: Bench) -> None:
    """The target grants one I/O queue: refused with both numbers where two are needed (one for each
    reactor), good enough for one reactor."""
    bench.kernel.set_attribute("qid_max", "1")

    def verify(cores: str) -> PerfReport:
        options = (*VERIFY, "-t", str(RUN_S), "-m", cores)
        return bench.programs.perf(bench.kernel_ports, nvmet.NQN, *options).finish(30)

    refused = verify("0,1")
    equal("exit status", refused.status, 1)
    wanted = r"grants 1 I/O queues?, 2 are needed"
    check(re.search(wanted, refused.output), f"not as {wanted!r}: {refused.output}")
    report = verify("0")
    check(report.passed, report.explain())


def start(bench: Bench, *options: str, seconds: float = 100, paths: int = 2) -> PerfRun:
    """Starts `verify` and returns once the target sees its I/O; a case ends it when it has done its part, however
    long that takes in an emulated machine."""
    run = bench.programs.perf(
        bench.kernel_ports[:paths], nvmet.NQN, *VERIFY, "-t", str(seconds), *options
    )
    bench.kernel.wait_io(run.running)
    if not run.running():
        raise Failure(run.finish(5).explain())
    return run


@case("host", "corruption-is-found")
def corruption(bench: Bench) -> None:
    """Negative control: data changed behind the device is reported with its place."""
    run = start(bench)
    bench.kernel.corrupt_device(1)
    bench.kernel.corrupt_device(2)
    report = run.finish(30)
    equal("exit status", report.status, 1)
    check(re.search(r"block \d+", report.output), f"no place was named: {report.output[-300:]}")


def written(bench: Bench, blocks: int) -> tuple[OurShell, bytes]:
    """A shell that has written this many blocks of namespace 1 with something other than zeroes."""
    shell = bench.programs.shell(bench.kernel_ports[:1], nvmet.NQN)
    data = bytes(1 + index % 255 for index in range(blocks * 512))
    shell.run(f"write {VOLUME} 0 {blocks}")
    equal("data behind the device", bench.kernel.read_device(1, 0, len(data)), data.hex())
    return shell, data


@case("host", "write-and-read", 8)
@case("host", "write-and-read-by-r2t", 256)
def write_and_read(bench: Bench, blocks: int) -> None:
    """A write in capsule, or one by R2T, is seen behind the device and read back."""
    shell, data = written(bench, blocks)
    check(shell.run(f"read {VOLUME} 0 {blocks}") == data.hex(), "it was read back otherwise")


@case("host", "write-zeroes")
def write_zeroes(bench: Bench) -> None:
    """Zeroes where they were asked for and nowhere else."""
    shell, data = written(bench, 16)
    shell.run(f"write-zeroes {VOLUME} 4 4")
    wanted = data[: 4 * 512] + bytes(4 * 512) + data[8 * 512 :]
    check(bench.kernel.read_device(1, 0, 16 * 512) == wanted.hex(), "other blocks are zero")


@case("host", "deallocate")
def deallocate(bench: Bench) -> None:
    """What was deallocated is gone, what is beside it is not."""
    shell, data = written(bench, 32)
    for lba in (0, 16):
        shell.run(f"deallocate {VOLUME} {lba} 8")
    hole = bytes(8 * 512)
    wanted = hole + data[8 * 512 : 16 * 512] + hole + data[24 * 512 :]
    check(bench.kernel.read_device(1, 0, 32 * 512) == wanted.hex(), "other blocks are gone")


@case("host", "compare-refused", kernel_log=(FAILED_CAPSULE,))
def compare_refused(bench: Bench) -> None:
    """The kernel's target has no Compare: its status reaches the caller, the connection stays."""
    shell, _ = written(bench, 8)
    answer = shell.ask(f"compare {VOLUME} 0 8")
    check("SCT 0h, SC 01h" in answer, f"not Invalid Command Opcode: {answer}")
    shell.run(f"flush {VOLUME}")


@case("host", "flush")
def flush(bench: Bench) -> None:
    """Flush of each namespace."""
    shell, _ = written(bench, 8)
    for name in sorted(shell.volumes()):
        shell.run(f"flush {name}")


@case("host", "end-of-volume")
def end_of_volume(bench: Bench) -> None:
    """The last block can be written and read; what goes beyond it is refused before it is sent."""
    shell, _ = written(bench, 8)
    last = bench.kernel.size_mib * MIB // 512 - 1
    shell.run(f"write {VOLUME} {last} 1")
    shell.run(f"read {VOLUME} {last} 1")
    for command in ("read", "write"):
        answer = shell.ask(f"{command} {VOLUME} {last} 2")
        check("outside the volume" in answer, f"{command}: {answer[:200]}")


@case("host", "abort-of-nothing")
def abort(bench: Bench) -> None:
    """Abort of a command that is not there succeeds and says that nothing was aborted; the controller
    has the keep-alive timeout that Connect asked for."""
    answers = bench.programs.questions(bench.kernel_ports[0], nvmet.NQN)
    equal("answers", len(answers), 2)
    for status, _ in answers:
        check("SCT 0h, SC 00h" in status, f"status {status}")
    equal("command not aborted", answers[0][1] & 1, 1)
    equal("KATO", answers[1][1], 5000)
