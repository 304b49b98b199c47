"""DH-HMAC-CHAP with the kernel, both ways: every hash function with every group, and who is not let in."""

import re
from pathlib import Path

import nvmet
import ours
from bench import Bench
from guest import wait_until
from kernel_host import KernelHost
from ours import OurHost, OurTarget, RpcError
from suite import Failure, case, check, equal

HASHES = ("sha256", "sha384", "sha512")
GROUPS = ("null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192")
# How a key is transformed before it is used, which has nothing to do with the hash function that is agreed on.
FORMS = ("none", *HASHES)
CONTROLLER_KEY = "controller"
WRONG_KEY = "wrong"


def host(group: str) -> str:
    """The host that is to agree on this group; its key has the same name."""
    return f"nqn.2026-01.io.pollux:host-{group}"


def proves_both(group: str, digest: str) -> bool:
    """Whether the controller is to prove itself as well: once for each group, twice with each hash function."""
    return HASHES[GROUPS.index(group) % len(HASHES)] == digest


def keys(bench: Bench) -> dict[str, Path]:
    """A key for each group, in all forms; one of the controller; and a wrong one."""
    forms = {group: FORMS[index % len(FORMS)] for index, group in enumerate(GROUPS)}
    forms |= {CONTROLLER_KEY: "sha256", WRONG_KEY: "none"}
    return {name: bench.programs.key(name, "--hmac", form) for name, form in forms.items()}


def secret(path: Path) -> str:
    """The text of a key."""
    return path.read_text(encoding="utf-8").strip()


def kernel_and_host(bench: Bench) -> OurHost:
    """The kernel's target wants keys of every host; a host of ours that has them all."""
    files = keys(bench)
    own = secret(files[CONTROLLER_KEY])
    bench.kernel.require_keys({host(name): (secret(files[name]), own, name) for name in GROUPS})
    started = bench.programs.host()
    add_keys(started.rpc, files)
    return started


def add_keys(rpc: ours.Rpc, files: dict[str, Path]) -> None:
    """Puts keys into a keyring, each by its name."""
    for name, path in files.items():
        rpc.call("keyring_file_add_key", name=name, path=str(path))


@case("host", "authentication")
def authentication(bench: Bench) -> None:
    """Each hash function is the only one that our host offers, each group the one that the kernel takes; an admin and
    an I/O queue authenticate."""
    bench.guest.check("echo 'func nvmet_auth_negotiate +p' > /proc/dynamic_debug/control")
    started = kernel_and_host(bench)
    for group in GROUPS:
        for digest in HASHES:
            # The kernel refuses a host that offers no other group than NULL.
            offered = [group] if group != "null" else [group, "ffdhe2048"]
            started.rpc.call("bdev_nvme_set_options", dhchap_digests=[digest], dhchap_dhgroups=offered)
            options = {"hostnqn": host(group), "dhchap_key": group}
            if proves_both(group, digest):
                options["dhchap_ctrlr_key"] = CONTROLLER_KEY
            try:
                volumes = started.attach(bench.kernel_ports[0], nvmet.NQN, **options)
            except RpcError as error:
                raise Failure(f"{digest}, {options}: {error}") from error
            equal("volumes", volumes, ["Kerneln1", "Kerneln2"])
            started.detach()
    log = bench.guest.check("dmesg; echo 'func nvmet_auth_negotiate -p' > /proc/dynamic_debug/control")
    chosen = re.findall(r"selected DH group (\w+)", log)
    equal("groups of both queues", chosen, [group for group in GROUPS for _ in range(2 * len(HASHES))])


@case("host", "authentication-refused", kernel_log=(r"ctrl \d+ fatal error occurred",))
def authentication_refused(bench: Bench) -> None:
    """Wrong keys and none, of either side: a clear error each time. Then the right key comes in, and its queues
    authenticate again."""
    started = kernel_and_host(bench)
    right = {"hostnqn": host("null"), "dhchap_key": "null"}
    for options, wanted in (
        ({"hostnqn": host("null")}, "no key was given"),
        (right | {"dhchap_key": WRONG_KEY}, "authentication failed"),
        (right | {"hostnqn": host("ffdhe2048")}, "authentication failed"),
        (right | {"dhchap_ctrlr_key": WRONG_KEY}, "does not prove"),
    ):
        try:
            started.attach(bench.kernel_ports[0], nvmet.NQN, **options)
        except RpcError as error:
            check(wanted in error.message, f"{options}: {error.message}, should be {wanted!r}")
        else:
            raise Failure(f"{options}: attached")
    equal("volumes", len(started.attach(bench.kernel_ports[0], nvmet.NQN, **right)), 2)
    started.rpc.call("bdev_nvme_set_keys", name="Kernel", dhchap_key="null")


def target_and_keys(bench: Bench) -> tuple[OurTarget, dict[str, Path]]:
    """A target of ours that wants keys of every host."""
    files = keys(bench)
    target = bench.programs.target(bench.our_ports[:1], "memory", managed=True)
    add_keys(target.rpc, files)
    target.rpc.call("nvmf_subsystem_allow_any_host", nqn=ours.NQN, allow_any_host=False)
    for group in GROUPS:
        target.rpc.call(
            "nvmf_subsystem_add_host",
            nqn=ours.NQN,
            host=host(group),
            dhchap_key=group,
            dhchap_ctrlr_key=CONTROLLER_KEY,
        )
    return target, files


def guest_host(bench: Bench, group: str) -> KernelHost:
    """The kernel's host of this group; each has an identifier of its own."""
    return KernelHost(bench.guest, ours.NQN, host(group), GROUPS.index(group))


def agreed(target: OurTarget) -> list[tuple[int, str, str]]:
    """Queue, hash function and group of every queue that has authenticated."""
    queues = target.rpc.call("nvmf_subsystem_get_qpairs", nqn=ours.NQN)
    return [(one["qid"], one["auth"]["digest"], one["auth"]["dhgroup"]) for one in queues]


@case("target", "authentication")
def authenticated(bench: Bench) -> None:
    """Each hash function with each group is all that our target takes; an admin and an I/O queue authenticate."""
    target, files = target_and_keys(bench)
    for group in GROUPS:
        for digest in HASHES:
            target.rpc.call("nvmf_set_config", dhchap_digests=[digest], dhchap_dhgroups=[group])
            options = f"-i 1 --dhchap-secret={secret(files[group])}"
            if proves_both(group, digest):
                options += f" --dhchap-ctrl-secret={secret(files[CONTROLLER_KEY])}"
            kernel = guest_host(bench, group)
            kernel.connect(bench.our_ports[0], options)
            equal("queues", agreed(target), [(qid, digest, group) for qid in (0, 1)])
            kernel.disconnect()


@case(
    "target",
    "authentication-refused",
    kernel_log=(r"failed to connect queue: 0 ret=-\d+", r"qid 0: authentication (setup )?failed"),
)
def not_authenticated(bench: Bench) -> None:
    """Wrong keys and none, of either side: no connection each time. Then the right key comes in, and its queues
    authenticate again with another one."""
    target, files = target_and_keys(bench)
    right = f"--dhchap-secret={secret(files['null'])}"
    for group, options in (
        ("null", ""),
        ("null", f"--dhchap-secret={secret(files[WRONG_KEY])}"),
        ("ffdhe2048", right),
        ("null", f"{right} --dhchap-ctrl-secret={secret(files[WRONG_KEY])}"),
    ):
        arguments = guest_host(bench, group).connect_arguments(bench.our_ports[0], options)
        done = bench.guest.run(f"nvme {arguments}")
        wanted = r"Required key not available|Key was rejected by service|Connection refused"
        check(done.status != 0 and re.search(wanted, done.output), f"{options}: {done.output}")
    equal("controllers", target.controllers(), 0)
    target.rpc.call("nvmf_set_config", dhchap_digests=["sha256"])
    kernel = guest_host(bench, "null")
    kernel.connect(bench.our_ports[0], f"-i 1 {right}")
    before = agreed(target)
    equal("hash functions", {digest for _, digest, _ in before}, {"sha256"})
    target.rpc.call("nvmf_set_config", dhchap_digests=["sha512"])
    name = kernel.controllers()[0]
    bench.guest.check(f"echo {secret(files['null'])} > /sys/class/nvme/{name}/dhchap_secret")
    after = [(qid, "sha512", group) for qid, _, group in before]
    wait_until("both queues to authenticate again", 10, lambda: agreed(target) == after)
    equal("state", kernel.controller_state(name), "live")
