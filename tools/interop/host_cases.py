"""Our host against the kernel's target: what is read, verified data, and single commands."""

import re

import nvmet
from bench import Bench
from nvmet import STATES
from ours import DISCOVERY_NQN, MIB, OurHost, PerfReport, PerfRun
from suite import Failure, case, check, equal

FAILED_CAPSULE = r"nvmet_tcp: failed cmd"
VERIFY = ("-w", "verify", "-q", "16", "--seed", "1")
RUN_S = 1.0

# Opcodes and codes of the NVM command set.
FLUSH, WRITE, READ, COMPARE, WRITE_ZEROES, DATASET_MANAGEMENT = 0, 1, 2, 5, 8, 9
ABORT = 8
INVALID_OPCODE, INTERNAL_ERROR = (0, 0x01), (0, 0x06)
DEALLOCATE = 1 << 2


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
        entries = bench.programs.discover((address, port))
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
    entries = bench.programs.discover(bench.kernel_ports[0])
    referred = [one for one in entries if one["traddr"] == "192.0.2.7"]
    equal("referrals", [one["trsvcid"] for one in referred], ["8009"])
    equal("NQN of the referral", referred[0]["subnqn"], DISCOVERY_NQN)


@case("host", "ana-log")
def ana_log(bench: Bench) -> None:
    """Every group of the ports, with the namespaces in it; the states differ by port and group."""
    bench.kernel.set_ana(0, 1, "non-optimized")
    bench.kernel.set_ana(1, 2, "inaccessible")
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
        bench.kernel.set_ana(0, 2, state)
        found = bench.programs.ana(bench.kernel_ports[0], nvmet.NQN)
        equal("state of group 2", found[2].state, state)
        equal("state of group 1", found[1].state, "optimized")


@case("host", "verify-one-path", 1, ())
@case("host", "verify-active-passive", 2, ())
@case("host", "verify-header-digest", 2, ("--hdgst",))
@case("host", "verify-data-digest", 2, ("--ddgst",))
@case("host", "verify-both-digests", 2, ("--hdgst", "--ddgst"))
@case("host", "verify-one-path-both-digests", 1, ("--hdgst", "--ddgst"))
@case("host", "verify-512", 2, ("-o", "512"))
@case("host", "verify-64k", 2, ("-o", "64k"))
@case("host", "verify-1m", 2, ("-o", "1m", "-q", "4"))
@case("host", "verify-1m-both-digests", 2, ("-o", "1m", "-q", "4", "--hdgst", "--ddgst"))
@case("host", "verify-mixed", 2, ("-o", "512-1m", "--stride", "7", "-q", "8"))
@case(
    "host",
    "verify-mixed-both-digests",
    2,
    ("-o", "512-1m", "--stride", "7", "-q", "8", "--hdgst", "--ddgst"),
)
def verify(bench: Bench, paths: int, options: tuple[str, ...]) -> None:
    """Data comes back as written."""
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


@case("host", "sq-flow-control-off", True)
@case("host", "sq-flow-control-on", False)
def sq_flow_control(bench: Bench, disable: bool) -> None:
    """Without it the target uses the SUCCESS flag, SQHD means nothing."""
    options = ("-q", "16", "-o", "4096", "-w", "verify", "-t", "1")
    host = bench.programs.workload(*options)
    host.attach(bench.kernel_ports[0], nvmet.NQN, disable_sq_flow_control=disable)
    results = host.rpc.call("perform_tests", timeout_s=30)["results"]
    check(results, "perform_tests ran no job")
    for job in results:
        equal("failed I/O", job["io_failed"], 0)
        check(job["iops"] > 0, "no I/O was done")


def start(bench: Bench, seconds: float, *options: str, paths: int = 2) -> PerfRun:
    """Starts `verify` and returns once the target sees its I/O."""
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
    run = start(bench, 4)
    bench.kernel.corrupt_device(1)
    bench.kernel.corrupt_device(2)
    report = run.finish(30)
    equal("exit status", report.status, 1)
    check(re.search(r"block \d+", report.output), f"no place was named: {report.output[-300:]}")


def attached(bench: Bench) -> OurHost:
    """A host with one path."""
    host = bench.programs.host()
    names = host.attach(bench.kernel_ports[0], nvmet.NQN)
    equal("volumes", len(names), 2)
    return host


def written(bench: Bench, blocks: int) -> tuple[OurHost, bytes]:
    """A host that has written this many blocks of namespace 1 with something other than zeroes."""
    host = attached(bench)
    data = bytes(1 + index % 255 for index in range(blocks * 512))
    done = host.send("io", WRITE, 1, (0, 0, blocks - 1), data=data)
    equal("status of write", done.status, 0)
    equal("data behind the device", bench.kernel.read_device(1, 0, len(data)), data.hex())
    return host, data


@case("host", "write-and-read")
def write_and_read(bench: Bench) -> None:
    """A write in capsule and one by R2T, read back and seen behind the device."""
    for blocks in (8, 256):
        host, data = written(bench, blocks)
        done = host.send("io", READ, 1, (0, 0, blocks - 1), read_length=blocks * 512)
        equal("status of read", done.status, 0)
        check(done.data == data, f"{blocks} blocks were read back otherwise")
        host.process.kill()


@case("host", "write-zeroes")
def write_zeroes(bench: Bench) -> None:
    """Zeroes where they were asked for and nowhere else."""
    host, data = written(bench, 16)
    done = host.send("io", WRITE_ZEROES, 1, (4, 0, 3))
    equal("status", done.status, 0)
    wanted = data[: 4 * 512] + bytes(4 * 512) + data[8 * 512 :]
    check(bench.kernel.read_device(1, 0, 16 * 512) == wanted.hex(), "other blocks are zero")


@case("host", "deallocate")
def deallocate(bench: Bench) -> None:
    """Two ranges in one command."""
    host, data = written(bench, 32)
    ranges = b"".join(
        (0).to_bytes(4, "little") + (8).to_bytes(4, "little") + start.to_bytes(8, "little")
        for start in (0, 16)
    )
    done = host.send("io", DATASET_MANAGEMENT, 1, (1, DEALLOCATE), data=ranges)
    equal("status", done.status, 0)
    hole = bytes(8 * 512)
    wanted = hole + data[8 * 512 : 16 * 512] + hole + data[24 * 512 :]
    check(bench.kernel.read_device(1, 0, 32 * 512) == wanted.hex(), "other blocks are gone")


@case("host", "compare-refused", kernel_log=(FAILED_CAPSULE,))
def compare_refused(bench: Bench) -> None:
    """The kernel's target has no Compare: its status reaches the caller, the connection stays."""
    host, data = written(bench, 8)
    equal("status", host.send("io", COMPARE, 1, (0, 0, 7), data=data).code, INVALID_OPCODE)
    equal("flush afterwards", host.send("io", FLUSH, 1).status, 0)


@case("host", "flush")
def flush(bench: Bench) -> None:
    """Flush of each namespace."""
    host, _ = written(bench, 8)
    for nsid in (1, 2):
        equal(f"status for namespace {nsid}", host.send("io", FLUSH, nsid).status, 0)


@case("host", "abort-of-nothing")
def abort(bench: Bench) -> None:
    """Abort of a command that is not there succeeds and says that nothing was aborted."""
    host = attached(bench)
    done = host.send("admin", ABORT, 0, (0xFFF0 << 16 | 1,))
    equal("status", done.status, 0)
    equal("command aborted (bit 0: no)", done.result & 1, 1)


@case("host", "lba-out-of-range", kernel_log=(FAILED_CAPSULE,))
def out_of_range(bench: Bench) -> None:
    """A read and a write behind the end fail (the kernel's target calls it an internal error)."""
    host, data = written(bench, 8)
    end = bench.kernel.size_mib * MIB // 512
    read = host.send("io", READ, 1, (end, 0, 7), read_length=4096)
    equal("status of read", read.code, INTERNAL_ERROR)
    write = host.send("io", WRITE, 1, (end, 0, 7), data=data)
    equal("status of write", write.code, INTERNAL_ERROR)
    equal("flush afterwards", host.send("io", FLUSH, 1).status, 0)
