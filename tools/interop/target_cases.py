"""The kernel's host against our target: discovery, admin commands and verified data."""

import re

import ours
from bench import Bench
from guest import MACHINE_ADDRESSES, wait_until
from kernel_host import HOST_ID, HOST_NQN, KernelHost
from ours import DISCOVERY_NQN, MIB, NAMESPACE_MIB, OurTarget, namespace_uuid
from suite import case, check, equal

HOST = f"-q {HOST_NQN} -I {HOST_ID}"


def connected(
    bench: Bench,
    *namespaces: str,
    options: str = "",
    paths: int = 2,
    states: tuple[str, ...] = (),
    managed: bool = False,
) -> tuple[OurTarget, str]:
    """A target with these namespaces (one in memory if none is named), connected to over `paths`
    paths; and the device of namespace 1."""
    target = bench.programs.target(
        bench.our_ports, *(namespaces or ("memory",)), states=states, managed=managed
    )
    for address in bench.our_ports[:paths]:
        bench.initiator.connect(address, options)
    device = bench.initiator.device(1)
    bench.initiator.wait_paths(device, paths)
    return target, device


def controller(bench: Bench) -> str:
    """The device file of one controller."""
    return f"/dev/{bench.initiator.controllers()[0]}"


def entries(bench: Bench, arguments: str) -> list[dict[str, str]]:
    """The records of a discovery log."""
    return list(bench.initiator.nvme_json(f"discover {arguments} {HOST}")["records"])


@case("target", "discover")
def discover(bench: Bench) -> None:
    """The log names both listeners as they are reached, and the discovery subsystem."""
    bench.programs.target(bench.our_ports, "memory")
    address, port = bench.our_ports[0]
    records = entries(bench, f"-t tcp -a {address} -s {port}")
    listed = {(one["traddr"], one["trsvcid"]) for one in records if one["subnqn"] == ours.NQN}
    wanted = {(address, str(port)) for address, port in bench.our_ports}
    equal("listeners", listed, wanted)
    unknown = {one["subnqn"] for one in records} - {ours.NQN, DISCOVERY_NQN}
    check(not unknown, f"unexpected entries: {unknown}")


@case("target", "discover-referral")
def discover_referral(bench: Bench) -> None:
    """A referral is a record of another discovery service."""
    target = bench.programs.target(bench.our_ports, "memory", managed=True)
    target.refer("192.0.2.7", "8009")
    address, port = bench.our_ports[0]
    records = entries(bench, f"-t tcp -a {address} -s {port}")
    referred = [one for one in records if one["traddr"] == "192.0.2.7"]
    equal("referrals", [one["trsvcid"] for one in referred], ["8009"])
    check("referral" in referred[0]["subtype"], f"subtype {referred[0]['subtype']}")


@case("target", "persistent-discovery")
def persistent_discovery(bench: Bench) -> None:
    """A discovery controller stays connected; a change of the log raises a notice there."""
    target = bench.programs.target(bench.our_ports[:1], "memory", managed=True)
    address, port = bench.our_ports[0]
    entries(bench, f"-t tcp -a {address} -s {port} --persistent --keep-alive-tmo=4")
    discovery = KernelHost(bench.guest, DISCOVERY_NQN)
    name = wait_until("the discovery controller", 5, discovery.controllers)[0]
    target.addresses = list(bench.our_ports)
    target.add_listener(1)
    records = entries(bench, f"--device={name}")
    equal("records of the subsystem", sum(one["subnqn"] == ours.NQN for one in records), 2)
    equal("state", discovery.controller_state(name), "live")


@case("target", "connect-all")
def connect_all(bench: Bench) -> None:
    """Every listener of the log is connected to."""
    bench.programs.target(bench.our_ports, "memory")
    address, port = bench.our_ports[0]
    bench.initiator.nvme(f"connect-all -t tcp -a {address} -s {port} {HOST}", 30)
    paths = bench.initiator.wait_paths(bench.initiator.device(1), 2)
    equal("addresses", [path.traddr for path in paths], list(MACHINE_ADDRESSES))


@case("target", "command-line-target")
def command_line_target(bench: Bench) -> None:
    """A target that was set up by options alone."""
    listeners = [
        part for address, port in bench.our_ports for part in ("--listen", f"{address}:{port}")
    ]
    sizes = [part for size in ("8m", "16m") for part in ("--namespace", f"memory:{size}")]
    process = bench.programs.start("pollux", "target", *listeners, *sizes)
    address, port = bench.our_ports[0]

    def found() -> set[str]:
        check(process.running(), f"pollux target ended: {process.tail()}")
        script = f"nvme discover -t tcp -a {address} -s {port} {HOST}"
        names = re.findall(r"subnqn: +(\S+)", bench.guest.run(script).output)
        return set(names) - {DISCOVERY_NQN}

    nqn = wait_until("a subsystem in the log", 10, found).pop()
    host = KernelHost(bench.guest, nqn)
    host.connect(bench.our_ports[1])
    for nsid, mib in ((1, 8), (2, 16)):
        device = host.device(nsid)
        size = int(bench.guest.check(f"blockdev --getsize64 {device}"))
        equal(f"size of namespace {nsid}", size, mib * MIB)
    host.disconnect()
    equal("exit status", process.terminate(), 0)


@case("target", "list-verbose")
def list_verbose(bench: Bench) -> None:
    """Subsystem, both controllers and the namespace with size and model."""
    connected(bench)
    text = bench.initiator.nvme("list -v")
    for wanted in (ours.NQN, ours.SERIAL, ours.MODEL, *MACHINE_ADDRESSES):
        check(wanted in text, f"{wanted} is missing in: {text}")


@case("target", "list-subsystems")
def list_subsystems(bench: Bench) -> None:
    """Two live paths, the second non-optimized."""
    _, device = connected(bench, states=("optimized", "non_optimized"))
    text = bench.initiator.nvme(f"list-subsys {device}")
    check(ours.NQN in text, f"no {ours.NQN} in: {text}")
    for address, state in zip(MACHINE_ADDRESSES, ("optimized", "non-optimized"), strict=True):
        wanted = rf"traddr={re.escape(address)},.* live {state}"
        check(re.search(wanted, text), f"{wanted!r} is not in: {text}")


@case("target", "id-ctrl")
def id_ctrl(bench: Bench) -> None:
    """Identify Controller as the kernel's users read it."""
    connected(bench)
    found = bench.initiator.nvme_json(f"id-ctrl {controller(bench)}")
    equal("serial number", found["sn"].strip(), ours.SERIAL)
    equal("model", found["mn"].strip(), ours.MODEL)
    equal("NQN", found["subnqn"], ours.NQN)
    check(1 <= found["cntlid"] <= 0xFFEF, f"CNTLID {found['cntlid']:#x}")
    check(found["cmic"] & 0xA == 0xA, f"CMIC {found['cmic']:#x}: several controllers with ANA")
    check(found["oaes"] & 0x900 == 0x900, f"OAES {found['oaes']:#x}: namespace and ANA notices")
    check(found["anatt"] > 0, "ANATT is 0")
    check(found["anacap"] & 0x1F == 0x1F, f"ANACAP {found['anacap']:#x}: all states reported")
    check(0 < found["nanagrpid"] <= found["anagrpmax"], "NANAGRPID exceeds ANAGRPMAX")
    check(found["kas"] > 0, "KAS is 0: no keep-alive")
    check(found["oncs"] & 0xC == 0xC, f"ONCS {found['oncs']:#x}: deallocate and write zeroes")
    check(found["ioccsz"] >= 4, f"IOCCSZ {found['ioccsz']}")
    check(found["sgls"] & 3, f"SGLS {found['sgls']:#x}: SGLs are what fabrics use")


@case("target", "id-ns")
def id_ns(bench: Bench) -> None:
    """Identify Namespace: size, block size, group."""
    _, device = connected(bench)
    found = bench.initiator.nvme_json(f"id-ns {device}")
    equal("NSZE", found["nsze"], NAMESPACE_MIB * MIB // 512)
    equal("NCAP", found["ncap"], found["nsze"])
    block_format = found["lbafs"][found["flbas"] & 0xF]
    equal("LBA data size", block_format["ds"], 9)
    check(found["anagrpid"] > 0, "ANAGRPID is 0")
    check(found["nmic"] & 1, "NMIC: the namespace is shared")


@case("target", "ns-descs")
def ns_descs(bench: Bench) -> None:
    """The UUID that was set."""
    _, device = connected(bench, managed=True)
    found = bench.initiator.nvme(f"ns-descs {device}")
    check(namespace_uuid(1) in found, f"no {namespace_uuid(1)} in: {found}")


@case("target", "list-ns")
def list_ns(bench: Bench) -> None:
    """The active namespaces, in ascending order."""
    connected(bench, "memory", "null", "memory")
    found = bench.initiator.nvme(f"list-ns {controller(bench)}")
    equal("NSIDs", re.findall(r":(0x[0-9a-f]+)", found), ["0x1", "0x2", "0x3"])


@case("target", "ana-log")
def ana_log(bench: Bench) -> None:
    """A group with the namespaces in it and the state of this listener."""
    connected(bench, "memory", "memory", states=("non_optimized", "non_optimized"))
    log = bench.initiator.nvme_json(f"ana-log {controller(bench)}")
    groups = [group for group in log["ANA DESC LIST "] if group["nnsids"]]
    equal("states", {group["state"] for group in groups}, {"non-optimized"})
    nsids = sorted(one["nsid"] for group in groups for one in group["NSIDS"])
    equal("NSIDs in the groups", nsids, [1, 2])


@case("target", "smart-log")
def smart_log(bench: Bench) -> None:
    """Counters that grow with I/O, no warning, a temperature that can be."""
    _, device = connected(bench)
    before = bench.initiator.nvme_json(f"smart-log {controller(bench)}")
    equal("critical warning", before["critical_warning"], 0)
    check(before["percent_used"] <= 100, f"percentage used {before['percent_used']}")
    check(before["avail_spare"] >= before["spare_thresh"], "spare is below its threshold")
    bench.guest.check(f"dd if=/dev/zero of={device} bs=64k count=4 oflag=direct status=none")
    names = bench.initiator.controllers()
    after = [bench.initiator.nvme_json(f"smart-log /dev/{name}") for name in names]
    writes = max(int(str(one["host_write_commands"]).replace(",", "")) for one in after)
    check(writes > 0, "no write was counted")


@case("target", "error-log")
def error_log(bench: Bench) -> None:
    """As many entries as ELPE says, the newest first."""
    connected(bench)
    name = controller(bench)
    entry_count = bench.initiator.nvme_json(f"id-ctrl {name}")["elpe"] + 1
    found = bench.initiator.nvme_json(f"error-log {name} -e {entry_count}")["errors"]
    equal("entries", len(found), entry_count)
    counts = [one["error_count"] for one in found]
    equal("error counts", counts, sorted(counts, reverse=True))


@case("target", "fw-log")
def fw_log(bench: Bench) -> None:
    """An active slot that holds the firmware revision of Identify Controller."""
    connected(bench)
    name = controller(bench)
    text = bench.initiator.nvme(f"fw-log {name}")
    slot = re.search(r"afi *: *(0x[0-9a-f]+|\d+)", text)
    check(slot is not None and 1 <= int(slot.group(1), 0) & 7 <= 7, f"no active slot: {text}")
    revision = bench.initiator.nvme_json(f"id-ctrl {name}")["fr"].strip()
    check(revision in text, f"firmware {revision!r} is not in: {text}")


@case("target", "effects-log")
def effects_log(bench: Bench) -> None:
    """Read and write are supported, write changes data; identify is supported."""
    connected(bench)
    text = bench.initiator.nvme(f"effects-log {controller(bench)} -c 0")
    for name, bits in (("Read", 1), ("Write", 3), ("Identify", 1)):
        found = re.search(rf"\[{name} *\] *([0-9a-f]+)", text)
        check(found is not None, f"{name} is not in: {text[:400]}")
        assert found is not None
        value = int(found.group(1), 16)
        check(value & bits == bits, f"effects of {name}: {value:#x}")


@case("target", "properties")
def properties(bench: Bench) -> None:
    """Version, configuration and status while the controller is in use; a refusal for one that is not."""
    connected(bench)
    name = controller(bench)
    for offset, wanted in ((0x08, r"value: 1[0-9a-f]{4}$"), (0x14, r"460061$"), (0x1C, r"value: 1$")):
        found = bench.initiator.nvme(f"get-property {name} -o {offset}")
        check(re.search(wanted, found), f"property {offset:#x} is not as {wanted!r}: {found}")
    absent = bench.guest.run(f"nvme get-property {name} -o 0x20")
    check("Invalid Field" in absent.output, f"a property that is not there: {absent.output}")


@case("target", "get-feature-queues", 0x07, "number of queues")
@case("target", "get-feature-aec", 0x0B, "asynchronous event configuration")
@case("target", "get-feature-kato", 0x0F, "keep-alive timer")
@case("target", "get-feature-write-cache", 0x06, "volatile write cache")
def get_feature(bench: Bench, feature: int, what: str) -> None:
    """Features of which the kernel set some."""
    connected(bench, options="--keep-alive-tmo=6", paths=1)
    text = bench.initiator.nvme(f"get-feature {controller(bench)} -f {feature}")
    found = re.search(r"(?i)value: *(?:0x)?([0-9a-f]+)", text)
    check(found is not None, f"{what}: no value in: {text}")
    assert found is not None
    value = int(found.group(1), 16)
    if feature == 0x07:
        check(value & 0xFFFF < 0xFFFF and value >> 16 < 0xFFFF, f"number of queues {value:#x}")
    elif feature == 0x0B:
        check(value & 0x900 == 0x900, f"events on: {value:#x}")
    elif feature == 0x0F:
        equal(what, value, 6000)
    else:
        check(value in (0, 1), f"{what}: {value:#x}")


@case("target", "fio-no-digest", "")
@case("target", "fio-header-digest", "--hdr-digest")
@case("target", "fio-data-digest", "--data-digest")
@case("target", "fio-both-digests", "--hdr-digest --data-digest")
def fio_digests(bench: Bench, options: str) -> None:
    """Mixed sizes up to 256 KiB come back as written."""
    _, device = connected(bench, options=options)
    run = bench.initiator.fio(device, "--rw=randwrite --bsrange=512-256k --size=6m --iodepth=8")
    check(run.passed, run.explain())


@case("target", "fio-trims-and-syncs")
def fio_trims(bench: Bench) -> None:
    """Writes, trims, flushes and reads of random sizes, in one run."""
    _, device = connected(bench)
    run = bench.initiator.fio(
        device,
        "--rw=randtrimwrite --bsrange=4k-64k --size=4m --iodepth=8 --fsync=16 --do_verify=0",
    )
    check(run.passed, run.explain())
    run = bench.initiator.fio(device, "--rw=randrw --bsrange=512-64k --size=3m --iodepth=8 --fsync=8")
    check(run.passed, run.explain())


@case("target", "fio-1m")
def fio_large(bench: Bench) -> None:
    """Requests of a mebibyte, written by R2T."""
    _, device = connected(bench)
    run = bench.initiator.fio(device, "--rw=write --bs=1m --size=12m --iodepth=4")
    check(run.passed, run.explain())


@case("target", "policy-numa", "numa", 1)
@case("target", "policy-round-robin", "round-robin", 2)
@case("target", "policy-queue-depth", "queue-depth", 2)
def policy(bench: Bench, name: str, busy: int) -> None:
    """As many paths carry I/O as the policy uses."""
    _, device = connected(bench)
    bench.initiator.set_policy(name)
    before = [path.ios for path in bench.initiator.paths(device)]
    run = bench.initiator.fio(device, "--rw=randwrite --bs=4k --size=2m --iodepth=16")
    check(run.passed, run.explain())
    after = [path.ios for path in bench.initiator.paths(device)]
    ios = [new - old for old, new in zip(before, after, strict=True)]
    equal(f"paths that carried I/O, of {ios}", sum(count > 4 for count in ios), busy)


@case("target", "small-queues", "--nr-io-queues=1 --queue-size=16")
@case("target", "sq-flow-control-off", "--disable-sqflow")
def connect_options(bench: Bench, options: str) -> None:
    """Other ways to connect carry data as well."""
    _, device = connected(bench, options=options)
    run = bench.initiator.fio(device, "--rw=randwrite --bsrange=512-64k --size=4m --iodepth=32")
    check(run.passed, run.explain())


@case("target", "corruption-is-found")
def corruption(bench: Bench) -> None:
    """Negative control: data changed in the file behind the namespace is found by fio."""
    backing = bench.backing_file(NAMESPACE_MIB)
    _, device = connected(bench, f"file:{backing}")
    options = "--rw=randwrite --bs=4k --size=1m --iodepth=8"
    written = bench.initiator.fio(device, f"{options} --do_verify=0")
    check(written.passed, written.explain())
    intact = bench.initiator.fio(device, f"{options} --verify_only")
    check(intact.passed, intact.explain())
    with backing.open("r+b") as file:
        file.seek(512 << 10)
        file.write(b"\xa5" * 4096)
    spoiled = bench.initiator.fio(device, f"{options} --verify_only")
    check(spoiled.found_corruption, f"corruption not found: {spoiled.explain()}")


@case("target", "io-commands")
def io_commands(bench: Bench) -> None:
    """Write, read, compare, write zeroes, deallocate and flush by nvme-cli."""
    _, device = connected(bench)
    blocks = f"{device} -s 8 -c 7"
    nvme = bench.initiator.nvme
    bench.guest.check("dd if=/dev/urandom of=/tmp/data bs=4096 count=1 status=none")
    nvme(f"write {blocks} -z 4096 -d /tmp/data")
    nvme(f"read {blocks} -z 4096 -d /tmp/back")
    bench.guest.check("cmp /tmp/data /tmp/back")
    nvme(f"compare {blocks} -z 4096 -d /tmp/data")
    nvme(f"flush {device}")
    nvme(f"write-zeroes {blocks}")
    different = bench.guest.run(f"nvme compare {blocks} -z 4096 -d /tmp/data")
    check(different.status != 0, "compare found no difference to zeroes")
    nvme(f"read {blocks} -z 4096 -d /tmp/back")
    bench.guest.check("head -c 4096 /dev/zero | cmp - /tmp/back")
    nvme(f"write {blocks} -z 4096 -d /tmp/data")
    nvme(f"dsm {device} -d -s 8 -b 8")
    nvme(f"read {blocks} -z 4096 -d /tmp/back")
    bench.guest.check("head -c 4096 /dev/zero | cmp - /tmp/back")


@case("target", "lba-out-of-range", kernel_log=(r"nvme\d+n\d+: .*LBA Out of Range",))
def out_of_range(bench: Bench) -> None:
    """A read behind the end gets its status."""
    _, device = connected(bench)
    end = NAMESPACE_MIB * MIB // 512
    result = bench.guest.run(f"nvme read {device} -s {end} -c 0 -z 512 -d /tmp/back")
    check(result.status != 0, "the read succeeded")
    check(re.search(r"(?i)LBA.?out.?of.?range|0x80\b", result.output), result.output.strip())
    bench.initiator.nvme(f"flush {device}")


@case("target", "masked-namespace")
def masked_namespace(bench: Bench) -> None:
    """A namespace that is not visible by itself is there for the kernel from when its host is allowed to see it, and until it
    is not any more; the other one stays."""
    target, _ = connected(bench, managed=True, paths=1)
    host = bench.initiator
    target.create_bdev("masked", "memory")
    hidden = {"bdev_name": "masked", "nsid": 2, "uuid": namespace_uuid(2), "no_auto_visible": True}
    target.rpc.call("nvmf_subsystem_add_ns", nqn=ours.NQN, namespace=hidden)
    name = host.controllers()[0]
    host.nvme(f"ns-rescan /dev/{name}")
    equal("namespaces", sorted(host.namespaces()), [1])
    for visible in (True, False):
        method = "nvmf_ns_add_host" if visible else "nvmf_ns_remove_host"
        target.rpc.call(method, nqn=ours.NQN, nsid=2, host=HOST_NQN)
        wanted = [1, 2] if visible else [1]
        wait_until(f"namespaces {wanted}", 10, lambda wanted=wanted: sorted(host.namespaces()) == wanted)
