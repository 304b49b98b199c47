#!/usr/bin/env python3
"""A whole session with SPDK's own command line client, unchanged: our target, our host and our load generator are
set up, asked everything, saved, loaded again and ended by it. Every method that they have is called."""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

from guest import wait_until  # noqa: E402
from packages import PreparationError  # noqa: E402
from ours import ProgramFailed  # noqa: E402
from spdk_client import Client, Managed, Unexpected, install  # noqa: E402
from suite import Failure, check, equal  # noqa: E402

HERE = Path(__file__).resolve().parent
NQN = "nqn.2014-08.org.example:session"
HOST_NQN = "nqn.2014-08.org.example:host"
LOCAL = ("-t", "tcp", "-a", "127.0.0.1")
DEADLINE_S = 90
PARAMETERS, NO_DEVICE, EXISTS, BUSY = -32602, -19, -17, -114


def options() -> argparse.Namespace:
    """The command line."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bin-dir",
        type=Path,
        default=HERE.parents[1] / "target" / "release",
        metavar="DIR",
        help="where our programs are (default: target/release of the workspace)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_home / "pollux-interop",
        metavar="DIR",
        help="where the client is kept (default: %(default)s)",
    )
    return parser.parse_args()


def disks(target: Managed, directory: Path) -> None:
    """Disks of each kind come, change their size, and are told of."""
    equal("name", target.call("bdev_malloc_create", "-b", "Malloc0", "16", "512"), "Malloc0")
    check(target.call("bdev_malloc_create", "1.5", "4096"), "a disk without a name gets one")
    target.refuse(PARAMETERS, "bdev_malloc_create", "1", "512", "-m", "8")
    target.refuse(EXISTS, "bdev_malloc_create", "-b", "Malloc0", "16", "512")
    target.call("bdev_null_create", "Null0", "8", "512")
    equal("resize", target.call("bdev_null_resize", "Null0", "16"), True)
    file = directory / "disk"
    with file.open("wb") as opened:
        opened.truncate(1 << 20)
    target.call("bdev_aio_create", str(file), "Aio0", "512")
    with file.open("ab") as opened:
        opened.truncate(2 << 20)
    equal("rescan", target.call("bdev_aio_rescan", "Aio0"), True)
    uring = directory / "uring"
    with uring.open("wb") as opened:
        opened.truncate(1 << 20)
    equal("uring", target.call("bdev_uring_create", str(uring), "Uring0", "512"), "Uring0")
    with uring.open("ab") as opened:
        opened.truncate(2 << 20)
    equal("rescan", target.call("bdev_uring_rescan", "Uring0"), True)
    target.call("bdev_uring_delete", "Uring0")
    target.call("bdev_wait_for_examine")
    sizes = {disk["name"]: disk["num_blocks"] for disk in target.call("bdev_get_bdevs")}
    equal("blocks", [sizes[name] for name in ("Malloc0", "Null0", "Aio0")], [32768, 32768, 4096])
    equal("one", len(target.call("bdev_get_bdevs", "-b", "Aio0", "-t", "1000")), 1)
    equal("iostat", target.call("bdev_get_iostat", "--names", "Malloc0")["bdevs"][0]["name"], "Malloc0")
    target.call("bdev_reset_iostat", "-b", "Malloc0", "-m", "all")
    target.call("bdev_set_qos_limit", "Malloc0", "--rw-ios-per-sec", "1000", "--w-mbytes-per-sec", "10")
    limits = target.call("bdev_get_bdevs", "-b", "Malloc0")[0]["assigned_rate_limits"]
    equal("limits", [limits["rw_ios_per_sec"], limits["w_mbytes_per_sec"]], [1000, 10])
    target.call("bdev_set_qos_limit", "Malloc0", "--rw-ios-per-sec", "0", "--w-mbytes-per-sec", "0")
    latencies(target, "Malloc0")
    check("bdev_resize" in target.call("notify_get_types"), "bdev_resize is a type")
    told = target.call("notify_get_notifications", "-i", "0", "-n", "100")
    check({"bdev_register", "bdev_resize"} <= {one["type"] for one in told}, f"told: {told}")


def latencies(managed: Managed, disk: str) -> None:
    """A histogram is counted, shown in both ways, and given up."""
    managed.call("bdev_enable_histogram", disk, "--histogram", "-o", "read")
    counted = managed.call("bdev_get_histogram", disk)
    ranges = counted["max_range"] - counted["min_range"]
    size = 8 * ranges << counted["granularity"]
    equal("histogram", len(base64.b64decode(counted["histogram"])), size)
    within = managed.call("bdev_get_histogram_borders", disk, "--borders", "100,1000")
    equal("borders", len(within["borders_count"]), 3)
    managed.call("bdev_enable_histogram", disk, "--no-histogram")


def layers(target: Managed) -> None:
    """Disks that are late or fail, one upon the other; the last one stays, below the subsystem."""
    target.call("bdev_error_create", "Malloc0")
    late = ("-r", "10", "-t", "20", "-w", "30", "-n", "40")
    target.call("bdev_delay_create", "-b", "EE_Malloc0", "-d", "Late0", *late)
    target.call("bdev_delay_update_latency", "Late0", "avg_read", "5")
    for error in ("failure", "pending"):
        target.call("bdev_error_inject_error", "EE_Malloc0", "read", error, "-n", "1")
    sct = ("--nvme-sct", "2", "--nvme-sc", "129")
    target.call("bdev_error_inject_error", "EE_Malloc0", "write", "nvme_failure", "-n", "1", *sct)
    target.call("bdev_error_inject_error", "EE_Malloc0", "clear", "failure")
    target.call("bdev_error_resume_pending", "EE_Malloc0")
    equal("layers", target.call("bdev_get_bdevs", "-b", "Late0")[0]["num_blocks"], 32768)
    target.call("bdev_delay_delete", "Late0")
    target.call("bdev_error_delete", "EE_Malloc0")


def keyring(managed: Managed, pollux: str, directory: Path) -> str:
    """A key comes and goes; one stays, whose name is returned."""
    name = f"{managed.name}-key"
    file = directory / name
    if not file.exists():
        subprocess.run([pollux, "key", "gen", "--output", str(file)], check=True)
    managed.call("keyring_file_add_key", "short-lived", str(file))
    managed.call("keyring_file_add_key", name, str(file))
    managed.call("keyring_file_remove_key", "short-lived")
    keys = managed.call("keyring_get_keys")
    equal("keys", [key["name"] for key in keys], [name])
    check("DHHC" not in json.dumps(keys), f"a secret is told: {keys}")
    return name


def sockets(managed: Managed) -> None:
    """What can be said of sockets, which is little, and that keys may be the kernel's."""
    equal("default", managed.call("sock_get_default_impl")["impl_name"], "posix")
    managed.call("sock_set_default_impl", "-i", "posix")
    equal("version", managed.call("sock_impl_get_options", "-i", "ssl")["tls_version"], 13)
    managed.call("sock_impl_set_options", "-i", "ssl", "--tls-version", "13", "-r", "65536")
    managed.call("keyring_linux_set_options", "--enable")
    managed.call("iobuf_set_options", "--small-pool-count", "8192", "--large-bufsize", "135168")


def authentication(target: Managed, key: str) -> None:
    """A host that must authenticate is named, its keys are set, and it goes."""
    target.call("nvmf_subsystem_add_host", NQN, HOST_NQN, "--dhchap-key", key)
    target.call("nvmf_subsystem_set_keys", NQN, HOST_NQN, "--dhchap-key", key, "--dhchap-ctrlr-key", key)
    target.call("nvmf_subsystem_remove_host", NQN, HOST_NQN, "-T", "1000")
    target.call("nvmf_set_config", "--dup-host-policy", "allow")


def tls(target: Managed, pollux: str, directory: Path) -> None:
    """A host that comes by TLS is named with its key, a secure listener is there for it, and both go."""
    file = directory / f"{target.name}-tls"
    if not file.exists():
        subprocess.run([pollux, "key", "gen", "--tls", "--output", str(file)], check=True)
    target.call("keyring_file_add_key", "tls", str(file))
    target.call("nvmf_subsystem_allow_any_host", NQN, "--no-allow-any-host")
    target.call("nvmf_subsystem_add_host", NQN, HOST_NQN, "--psk", "tls")
    target.call("nvmf_subsystem_add_listener", NQN, *LOCAL, "-s", "0", "-k")
    listeners = target.call("nvmf_subsystem_get_listeners", NQN)
    target.call("nvmf_subsystem_remove_listener", NQN, *LOCAL, "-s", listeners[-1]["address"]["trsvcid"])
    target.call("nvmf_subsystem_remove_host", NQN, HOST_NQN, "-T", "1000")
    target.call("nvmf_subsystem_allow_any_host", NQN, "--allow-any-host")
    target.call("keyring_file_remove_key", "tls")


def subsystem(target: Managed) -> list[str]:
    """A subsystem with a disk behind two listeners; their ports."""
    target.call("nvmf_set_max_subsystems", "-x", "1024")
    target.call("nvmf_create_transport", "-t", "tcp", "-c", "8192", "-o", "--masked-oncs", "nvmcpys,reservs")
    equal("transport", target.call("nvmf_get_transports", "--trtype", "tcp")[0]["trtype"], "TCP")
    sizes = ("--dmrsl", "2097152", "--wzsl", "12")
    target.call("nvmf_create_subsystem", NQN, "-s", "SESSION", "-d", "Pollux", "-r", "-m", "8", *sizes)
    target.refuse(EXISTS, "nvmf_create_subsystem", NQN)
    target.call("nvmf_subsystem_add_ns", NQN, "Malloc0", "-n", "1", "-a", "1")
    target.call("nvmf_subsystem_add_ns", NQN, "Null0")
    target.call("nvmf_subsystem_set_ns_ana_group", NQN, "2", "2")
    target.refuse(PARAMETERS, "nvmf_ns_add_host", NQN, "2", HOST_NQN)
    target.call("nvmf_subsystem_remove_ns", NQN, "2")
    target.call("nvmf_subsystem_add_ns", NQN, "Null0", "-n", "3", "--no-auto-visible")
    for host in (HOST_NQN, f"{HOST_NQN}-2"):
        target.call("nvmf_ns_add_host", NQN, "3", host)
    target.call("nvmf_ns_remove_host", NQN, "3", HOST_NQN)
    target.call("nvmf_subsystem_add_listener", NQN, *LOCAL, "-s", "0")
    second = (*LOCAL, "-s", "0", "-f", "ipv4", "-n", "non_optimized")
    target.call("nvmf_subsystem_add_listener", NQN, *second)
    target.call("nvmf_subsystem_add_listener", "discovery", *LOCAL, "-s", "0")
    third = target.call("nvmf_subsystem_add_listener", NQN, *LOCAL, "-s", "0", "-S", "posix")
    equal("a void answer", third, "")
    listeners = target.call("nvmf_subsystem_get_listeners", NQN)
    equal("state", listeners[1]["ana_states"][0]["ana_state"], "non_optimized")
    ports = [listener["address"]["trsvcid"] for listener in listeners]
    target.call("nvmf_subsystem_remove_listener", NQN, *LOCAL, "-s", ports.pop())
    target.call("nvmf_subsystem_allow_any_host", NQN, "--no-allow-any-host")
    target.call("nvmf_subsystem_add_host", NQN, HOST_NQN)
    target.call("nvmf_subsystem_remove_host", NQN, HOST_NQN, "-T", "1000")
    target.call("nvmf_subsystem_allow_any_host", NQN, "--allow-any-host")
    target.call("nvmf_discovery_add_referral", *LOCAL, "-s", "4420", "-n", "discovery")
    target.call("nvmf_discovery_add_referral", *LOCAL, "-s", "4421")
    equal("referrals", len(target.call("nvmf_discovery_get_referrals")), 2)
    target.call("nvmf_discovery_remove_referral", *LOCAL, "-s", "4420", "-n", "discovery")
    target.call("nvmf_discovery_remove_referral", *LOCAL, "-s", "4421")
    equal("delays", target.call("nvmf_set_crdt", "-t1", "1", "-t2", "2", "-t3", "3"), True)
    equal("subsystems", len(target.call("nvmf_get_subsystems")), 2)
    return ports


def program(managed: Managed) -> None:
    """What every program has."""
    check(managed.call("spdk_get_version")["version"], "a version")
    managed.call("framework_wait_init")
    reactors = managed.call("framework_get_reactors")
    equal("pid", reactors["pid"], managed.process.child.pid)
    threads = managed.call("thread_get_stats")["threads"]
    equal("threads", len(threads), len(reactors["reactors"]))
    managed.call("thread_set_cpumask", "-i", str(threads[0]["id"]), "-m", threads[0]["cpumask"])
    managed.refuse(-95, "thread_set_cpumask", "-i", str(threads[0]["id"]), "-m", "0x4000000000000000")
    pollers = managed.call("thread_get_pollers")["threads"][0]["active_pollers"]
    check(any(poller["busy_count"] for poller in pollers), f"nothing was ever busy: {pollers}")
    flag = next(iter(managed.call("log_get_flags")))
    managed.call("log_set_flag", flag)
    equal("flag", managed.call("log_get_flags")[flag], True)
    managed.call("log_clear_flag", "all")
    for level in ("DEBUG", "NOTICE"):
        for kind in ("print_level", "level"):
            managed.call(f"log_set_{kind}", level)
            equal(kind, managed.call(f"log_get_{kind}"), level)
    managed.call("log_enable_timestamps", "--timestamps")


def attach(host: Managed, ports: list[str]) -> None:
    """Two paths to one volume, and what is refused."""
    recover = ("-l", "-1", "-o", "1", "-u", "5")
    first = ("-b", "disk", *LOCAL, "-s", ports[0], "-n", NQN)
    host.call("bdev_nvme_set_options", "-r", "3", "--io-path-stat", "-m", "-k", "10000")
    host.call("bdev_nvme_set_hotplug", "--no-hotplug", "-r", "100000")
    equal("volumes", host.call("bdev_nvme_attach_controller", *first, *recover), "diskn1")
    host.refuse(BUSY, "bdev_nvme_attach_controller", *first, *recover)
    second = ("-b", "disk", *LOCAL, "-f", "ipv4", "-s", ports[1], "-n", NQN, "-x", "multipath")
    host.call("bdev_nvme_attach_controller", *second, *recover, "--num-io-queues", "1")
    host.refuse(-5, "bdev_nvme_attach_controller", "-b", "x", *LOCAL, "-s", "1", "-n", NQN)
    host.refuse(-126, "bdev_nvme_attach_controller", *first[:1], "x", *first[2:], "-k", "key")
    host.refuse(-1, "bdev_nvme_set_options", "-r", "4")


def other_keys(host: Managed, target: Managed, directory: Path, port: str) -> None:
    """A controller that is connected authenticates again when its keys are set."""
    key = f"{host.name}-key"
    target.call("keyring_file_add_key", key, str(directory / key))
    target.call("nvmf_subsystem_add_host", NQN, HOST_NQN, "--dhchap-key", key)
    keyed = ("-b", "keyed", *LOCAL, "-s", port, "-n", NQN, "-q", HOST_NQN, "--dhchap-key", key)
    equal("volumes", host.call("bdev_nvme_attach_controller", *keyed), "keyedn1")
    host.refuse(-19, "bdev_nvme_set_keys", "nobody", "--dhchap-key", key)
    host.call("bdev_nvme_set_keys", "keyed", "--dhchap-key", key)
    host.call("bdev_nvme_detach_controller", "keyed")
    wait_until("no volume", 5, lambda: host.call("bdev_get_bdevs") == [], 0.02)
    target.call("nvmf_subsystem_remove_host", NQN, HOST_NQN, "-T", "1000")
    target.call("keyring_file_remove_key", key)


def paths(host: Managed, volume: str = "diskn1") -> dict[str, dict]:
    """The paths of a volume by port."""
    groups = host.call("bdev_nvme_get_io_paths", "-n", volume)["poll_groups"]
    return {path["transport"]["trsvcid"]: path for path in groups[0]["io_paths"]}


def current(host: Managed) -> list[str]:
    """The ports of the paths that the next I/O could take."""
    return [port for port, path in paths(host).items() if path["current"]]


def multipath(host: Managed, target: Managed, ports: list[str]) -> None:
    """Path selection follows ANA states, the preferred path, and controllers that are turned off."""
    equal("current", current(host), ports[:1])
    away = (NQN, *LOCAL, "-s", ports[0])
    target.call("nvmf_subsystem_listener_set_ana_state", *away, "-n", "inaccessible")
    wait_until("the other path", 5, lambda: current(host) == ports[1:], 0.02)
    check(not paths(host)[ports[0]]["accessible"], "the first path is inaccessible")
    target.call("nvmf_subsystem_listener_set_ana_state", *away, "-n", "non_optimized", "-g", "1")
    wait_until("the first path", 5, lambda: paths(host)[ports[0]]["accessible"], 0.02)
    for port in (ports[0], ports[1]):
        cntlid = str(paths(host)[port]["cntlid"])
        host.call("bdev_nvme_set_preferred_path", "-b", "diskn1", "-c", cntlid)
        wait_until(f"preferred path {port}", 5, lambda port=port: current(host) == [port], 0.02)
    host.refuse(NO_DEVICE, "bdev_nvme_set_preferred_path", "-b", "diskn1", "-c", "65000")
    cntlid = str(paths(host)[ports[1]]["cntlid"])
    host.call("bdev_nvme_disable_controller", "disk", "-c", cntlid)
    wait_until("a path less", 5, lambda: current(host) == ports[:1], 0.02)
    controllers = host.call("bdev_nvme_get_controllers", "-n", "disk")[0]["ctrlrs"]
    equal("states", sorted(one["state"] for one in controllers), ["disabled", "enabled"])
    host.call("bdev_nvme_enable_controller", "disk", "-c", cntlid)
    host.call("bdev_nvme_reset_controller", "disk")
    wait_until("both paths", 5, lambda: all(p["connected"] for p in paths(host).values()), 0.02)


def volumes(host: Managed) -> None:
    """Volumes, their statistics, and admin commands."""
    volume = host.call("bdev_get_bdevs", "-b", "diskn1")[0]
    equal("blocks", volume["num_blocks"], 32768)
    equal("paths", len(volume["driver_specific"]["nvme"]), 2)
    equal("iostat", host.call("bdev_get_iostat", "--names", "diskn1")["bdevs"][0]["name"], "diskn1")
    for mode in ("maxmin", "all"):
        host.call("bdev_get_iostat", "--names", "diskn1", "--reset-mode", mode)
    channels = host.call("bdev_get_iostat", "--names", "diskn1", "--per-channel")["channels"]
    host.call("bdev_reset_iostat", "-b", "diskn1", "-m", "all")
    groups = host.call("bdev_nvme_get_transport_statistics")["poll_groups"]
    equal("reactors", len(groups), len(channels))
    latencies(host, "diskn1")
    host.call("bdev_set_qos_limit", "diskn1", "--rw-ios-per-sec", "1000")
    limits = host.call("bdev_get_bdevs", "-b", "diskn1")[0]["assigned_rate_limits"]
    equal("limit", limits["rw_ios_per_sec"], 1000)
    host.call("bdev_set_qos_limit", "diskn1", "--rw-ios-per-sec", "0")
    host.call("bdev_examine", "-b", "diskn1")
    equal("waited for", host.call("bdev_get_bdevs", "-b", "diskn1", "-t", "1000")[0], volume)
    fault = ("-n", "disk", "-t", "admin", "-o", "2")
    host.call("bdev_nvme_add_error_injection", *fault, "-e", "1", "-u", "0", "-c", "6")
    host.refuse(-5, "bdev_nvme_get_controller_health_info", "-c", "disk")
    host.call("bdev_nvme_add_error_injection", *fault, "-e", "1", "-s", "-w", "100")
    host.call("bdev_nvme_remove_error_injection", *fault)
    host.refuse(NO_DEVICE, "bdev_get_iostat", "--names", "none")
    stats = host.call("bdev_nvme_get_path_iostat", "-b", "diskn1")["stats"]
    equal("stats", len(stats), 2)
    health = host.call("bdev_nvme_get_controller_health_info", "-c", "disk")
    equal("serial", health["serial_number"], "SESSION")
    identify = bytearray(64)
    identify[0], identify[40] = 0x06, 0x01
    command = base64.urlsafe_b64encode(bytes(identify)).decode()
    sent = ("-n", "disk", "-t", "admin", "-r", "c2h", "-c", command, "-D", "4096")
    answer = host.call("bdev_nvme_send_cmd", *sent)
    data = base64.urlsafe_b64decode(answer["data"])
    equal("serial", data[4:24].decode().strip(), "SESSION")
    host.call("bdev_wait_for_examine")
    check("bdev_register" in host.call("notify_get_types"), "bdev_register is a type")
    told = [(one["type"], one["ctx"]) for one in host.call("notify_get_notifications", "-i", "0")]
    # The same namespace, by one controller's name and then by another's.
    keyed = [("bdev_register", "keyedn1"), ("bdev_unregister", "keyedn1")]
    equal("told", told[:3], [*keyed, ("bdev_register", "diskn1")])


def discovery(host: Managed, target: Managed) -> None:
    """What a discovery service lists is attached and detached."""
    listeners = target.call("nvmf_get_subsystems")[0]["listen_addresses"]
    service = (*LOCAL, "-s", listeners[0]["trsvcid"])
    host.call("bdev_nvme_start_discovery", "-b", "found", *service, "-T", "5000", "-o", "1", "-l", "-1")
    host.refuse(EXISTS, "bdev_nvme_start_discovery", "-b", "found", *service)
    equal("discovery", host.call("bdev_nvme_get_discovery_info")[0]["name"], "found")
    equal("found", len(host.call("bdev_nvme_get_controllers", "-n", "found0")[0]["ctrlrs"]), 2)
    host.call("bdev_nvme_stop_discovery", "-b", "found")
    host.refuse(NO_DEVICE, "bdev_nvme_get_controllers", "-n", "found0")


def connections(target: Managed) -> None:
    """The target tells of its controllers."""
    controllers = target.call("nvmf_subsystem_get_controllers", NQN)
    equal("controllers", len(controllers), 2)
    qpairs = target.call("nvmf_subsystem_get_qpairs", NQN)
    equal("queue pairs", sorted(pair["qid"] for pair in qpairs), [0, 0, 1, 1])
    groups = target.call("nvmf_get_stats")["poll_groups"]
    check(sum(group["current_io_qpairs"] for group in groups) == 2, f"stats: {groups}")


def other_ways(managed: Managed) -> None:
    """A process of its own, a script, a batch."""
    printed = managed.alone(script="# a comment\nlog_get_level\nspdk_get_version\n")
    check(printed.startswith('"NOTICE"'), f"script: {printed}")
    printed = managed.alone("--batch-mode", script="log_get_level\nlog_get_print_level\n")
    check(printed.count('"NOTICE"') == 2, f"batch: {printed}")
    check("rpc_get_methods" in managed.alone("rpc_get_methods", "--current"), "current methods")


def configuration(managed: Managed, again: list[str], directory: Path) -> Managed:
    """Saves, ends, starts anew and loads; what is saved then is the same."""
    saved = managed.call("save_config")
    subsystems = [one["subsystem"] for one in managed.call("framework_get_subsystems")]
    equal("subsystems", [one["subsystem"] for one in saved["subsystems"]], subsystems)
    for one in saved["subsystems"]:
        equal("part", managed.call("framework_get_config", one["subsystem"]), one["config"])
        part = managed.call("save_subsystem_config", "-n", one["subsystem"])
        equal("part", part, one)
    file = directory / f"{managed.name}.json"
    file.write_text(json.dumps(saved))
    managed.end()
    fresh = Managed(managed.client, [*again, "--wait-for-rpc"], directory, managed.name)
    fresh.refuse(-1, "bdev_get_bdevs")
    if "bdev_set_options" in fresh.call("rpc_get_methods"):
        fresh.call("bdev_set_options", "-p", "65536", "-c", "256", "--auto-examine")
    fresh.call("load_config", "-j", str(file))
    fresh.called.add("framework_start_init")
    equal("loaded again", fresh.call("save_config"), saved)
    fresh.called |= managed.called
    return fresh


def taken_down(target: Managed, host: Managed, ports: list[str]) -> None:
    """One path, then all; then the target's parts in the order that it wants."""
    host.call("bdev_nvme_detach_controller", "disk", *LOCAL, "-f", "ipv4", "-s", ports[1], "-n", NQN)
    equal("the other one", list(paths(host)), ports[:1])
    host.call("bdev_nvme_detach_controller", "disk")
    equal("volumes", host.call("bdev_get_bdevs"), [])
    target.call("nvmf_delete_subsystem", NQN)
    for kind, name in (("malloc", "Malloc0"), ("null", "Null0"), ("aio", "Aio0")):
        target.call(f"bdev_{kind}_delete", name)


def all_called(managed: Managed, commands: set[str]) -> None:
    """Every method for which the client has a command was called."""
    methods = set(managed.call("rpc_get_methods")) & commands
    check(len(methods) > 20, f"the client has commands for {sorted(methods)} only")
    missed = ", ".join(sorted(methods - managed.called))
    check(not missed, f"{managed.name}: the session does not call {missed}")


def session(client: Client, bin_dir: Path, directory: Path) -> None:
    """The whole of it."""
    pollux, perf = str(bin_dir / "pollux"), str(bin_dir / "pollux-perf")
    starts = {
        "target": [pollux, "target"],
        "host": [pollux, "host"],
        "perf": [perf, "serve", "-z", "-w", "randread"],
    }
    running: list[Managed] = []

    def start(name: str) -> Managed:
        running.append(Managed(client, starts[name], directory, name))
        return running[-1]

    try:
        commands = client.commands()
        target = start("target")
        disks(target, directory)
        layers(target)
        ports = subsystem(target)
        authentication(target, keyring(target, pollux, directory))
        tls(target, pollux, directory)
        program(target)
        sockets(target)
        for name in ("host", "perf"):
            host = start(name)
            keyring(host, pollux, directory)
            other_keys(host, target, directory, ports[0])
            attach(host, ports)
            connections(target)
            multipath(host, target, ports)
            volumes(host)
            discovery(host, target)
            program(host)
            sockets(host)
            other_ways(host)
            host = configuration(host, starts[name], directory)
            running.append(host)
            if name == "host":
                target = configuration(target, starts["target"], directory)
                running.append(target)
                # The host finds the target's new life by itself.
                connected = lambda: all(path["connected"] for path in paths(host).values())  # noqa: E731
                wait_until("the paths are back", 15, connected, 0.1)
                host.call("bdev_nvme_detach_controller", "disk")
            else:
                taken_down(target, host, ports)
            all_called(host, commands)
            host.end()
            # As the states were when the first host came.
            if name == "host":
                reset = (NQN, *LOCAL, "-s", ports[0], "-n", "optimized")
                target.call("nvmf_subsystem_listener_set_ana_state", *reset)
        all_called(target, commands)
        target.end()
    finally:
        for managed in running:
            managed.process.kill()


def timed_out(_number: int, _frame: object) -> None:
    """The whole takes too long."""
    raise TimeoutError(f"not done within {DEADLINE_S} s")


def main() -> int:
    """Runs the session; the exit status is 0 only if all was as it should be."""
    arguments = options()
    absent = [name for name in ("pollux", "pollux-perf") if not (arguments.bin_dir / name).exists()]
    if absent:
        print(f"{arguments.bin_dir} has no {' and no '.join(absent)}", file=sys.stderr)
        return 2
    try:
        package = install(arguments.cache)
    except (PreparationError, OSError) as error:
        print(f"SPDK's client cannot be had: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGALRM, timed_out)
    signal.alarm(DEADLINE_S)
    directory = Path(tempfile.mkdtemp(prefix="pollux-spdk-"))
    client = Client(package, directory / "client.log")
    started = time.monotonic()
    try:
        session(client, arguments.bin_dir, directory)
    except (Unexpected, Failure, ProgramFailed, TimeoutError) as error:
        print(f"failed: {error}", file=sys.stderr)
        print(f"logs are in {directory}", file=sys.stderr)
        return 1
    finally:
        client.close()
    shutil.rmtree(directory, ignore_errors=True)
    print(f"SPDK's client did all it should in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
