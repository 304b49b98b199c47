"""The kernel's NVMe target, managed through configfs in the guest."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from guest import GUEST_ADDRESSES, Guest, wait_until

ROOT = "/sys/kernel/config/nvmet"
NQN = "nqn.2026-01.io.pollux:kernel"
SERIAL = "pollux-interop-1"
MODEL = "Kernel target"
STATES = ("optimized", "non-optimized", "inaccessible", "persistent-loss", "change")


@dataclass(frozen=True)
class NamespaceFacts:
    """What configfs says about a namespace."""

    nsid: int
    device: str
    size_bytes: int
    group: int
    uuid: str
    nguid: str


class Nvmet:
    """One subsystem with two namespaces behind two ports.

    Namespace N is in ANA group N, and each port has its own state for each group. Port N listens on
    path N - 1 of the guest. Namespace 1 is a null_blk device with memory, namespace 2 a loop device
    over a file, which can grow.
    """

    subsystem = f"{ROOT}/subsystems/{NQN}"
    size_mib = 16

    def __init__(self, guest: Guest, ports: tuple[int, ...]) -> None:
        self.guest = guest
        self.ports = ports

    def build(self) -> None:
        """Makes devices, subsystem and ports; all groups optimized, any host allowed."""
        lines = [
            "set -e",
            "cd /sys/kernel/config/nullb",
            "mkdir nullb0",
            f"echo {self.size_mib} > nullb0/size",
            "echo 1 > nullb0/memory_backed",
            "echo 1 > nullb0/discard",
            "echo 1 > nullb0/power",
            f"truncate -s {self.size_mib}M /tmp/ns2.img",
            "losetup /dev/loop0 /tmp/ns2.img",
            f"mkdir {self.subsystem}",
            f"cd {self.subsystem}",
            "echo 1 > attr_allow_any_host",
            f"echo -n {SERIAL} > attr_serial",
            f"echo -n '{MODEL}' > attr_model",
        ]
        for nsid in (1, 2):
            lines += self.namespace_lines(nsid, self.device(nsid))
        for path in range(len(self.ports)):
            lines += self.port_lines(path)
        self.guest.check("\n".join(lines), 30)

    @staticmethod
    def device(nsid: int) -> str:
        """The block device behind a namespace of the standard configuration."""
        return {1: "/dev/nullb0", 2: "/dev/loop0", 3: "/dev/ram0"}[nsid]

    def namespace_lines(self, nsid: int, device: str) -> list[str]:
        """Shell lines that add a namespace."""
        directory = f"{self.subsystem}/namespaces/{nsid}"
        return [
            f"mkdir {directory}",
            f"echo -n {device} > {directory}/device_path",
            f"echo {nsid} > {directory}/ana_grpid",
            f"echo 1 > {directory}/enable",
        ]

    def port_lines(self, path: int) -> list[str]:
        """Shell lines that make the port of a path and open it."""
        directory = f"{ROOT}/ports/{path + 1}"
        groups = [f"{directory}/ana_groups/{group}" for group in (2, 3)]
        return [
            f"mkdir {directory}",
            f"echo tcp > {directory}/addr_trtype",
            f"echo ipv4 > {directory}/addr_adrfam",
            f"echo {GUEST_ADDRESSES[path]} > {directory}/addr_traddr",
            f"echo {self.ports[path]} > {directory}/addr_trsvcid",
            *(f"mkdir {group}" for group in groups),
            *(f"echo optimized > {group}/ana_state" for group in groups),
            f"ln -s {self.subsystem} {directory}/subsystems/{NQN}",
        ]

    def remove(self) -> None:
        """Takes everything down, whatever a case left behind."""
        script = f"""
            for link in {ROOT}/ports/*/subsystems/*; do rm -f "$link"; done
            rmdir {ROOT}/ports/*/referrals/* 2>/dev/null
            rmdir {ROOT}/ports/*/ana_groups/[!1]* 2>/dev/null
            for port in {ROOT}/ports/*; do [ ! -d "$port" ] || rmdir "$port"; done
            for link in {ROOT}/subsystems/*/allowed_hosts/*; do rm -f "$link"; done
            for host in {ROOT}/hosts/*; do [ ! -d "$host" ] || rmdir "$host"; done
            for ns in {ROOT}/subsystems/*/namespaces/*; do
                [ ! -d "$ns" ] || {{ echo 0 > "$ns/enable"; rmdir "$ns"; }}
            done
            for subsystem in {ROOT}/subsystems/*; do [ ! -d "$subsystem" ] || rmdir "$subsystem"; done
            losetup -d /dev/loop0 2>/dev/null
            rm -f /tmp/ns2.img
            for device in /sys/kernel/config/nullb/nullb*; do [ ! -d "$device" ] || rmdir "$device"; done
            ls -A {ROOT}/subsystems {ROOT}/ports {ROOT}/hosts | grep -v : | grep . && exit 1
            exit 0"""
        self.guest.check(script, 30)

    def set_ana(self, path: int, state: str, *groups: int) -> None:
        """Sets the state of groups on the port of a path."""
        files = [f"{ROOT}/ports/{path + 1}/ana_groups/{group}/ana_state" for group in groups]
        self.guest.check("\n".join(["set -e", *(f"echo {state} > {file}" for file in files)]))

    def ana(self, path: int, group: int) -> str:
        """The state of a group on the port of a path."""
        return self.guest.check(f"cat {ROOT}/ports/{path + 1}/ana_groups/{group}/ana_state")

    def add_namespace(self, nsid: int, device: str) -> None:
        """Adds and enables a namespace in the group of its number."""
        self.guest.check("\n".join(["set -e", *self.namespace_lines(nsid, device)]))

    def enable_namespace(self, nsid: int, enable: bool) -> None:
        """Takes a namespace off line or puts it back."""
        self.guest.check(f"echo {int(enable)} > {self.subsystem}/namespaces/{nsid}/enable")

    def grow_namespace_2(self, mib: int) -> None:
        """Makes the loop device larger and tells the target to look again."""
        self.guest.check(
            f"set -e\ntruncate -s {mib}M /tmp/ns2.img\nlosetup -c /dev/loop0\n"
            f"echo 1 > {self.subsystem}/namespaces/2/revalidate_size"
        )

    def close_port(self, path: int) -> None:
        """Removes the subsystem from a port: its controllers end, its discovery entry goes."""
        self.guest.check(f"rm {ROOT}/ports/{path + 1}/subsystems/{NQN}")

    def open_port(self, path: int) -> None:
        """Puts the subsystem back on a port."""
        self.guest.check(f"ln -s {self.subsystem} {ROOT}/ports/{path + 1}/subsystems/{NQN}")

    def secure_port(self, path: int, required: bool = True) -> None:
        """Has a port speak TLS: and nothing else, or with whoever wants it."""
        port = f"{ROOT}/ports/{path + 1}"
        treq = "required" if required else "not required"
        self.close_port(path)
        self.guest.check(f"set -e\necho tls1.3 > {port}/addr_tsas\necho '{treq}' > {port}/addr_treq")
        self.open_port(path)

    def keep_port_open(self, path: int) -> None:
        """Puts a second, empty subsystem on a port: it listens even without the first."""
        second = f"{self.subsystem}-second"
        self.guest.check(
            f"set -e\nmkdir {second}\necho 1 > {second}/attr_allow_any_host\n"
            f"ln -s {second} {ROOT}/ports/{path + 1}/subsystems/{NQN}-second"
        )

    def allow_hosts(self, *nqns: str) -> None:
        """Lets these hosts in and no other."""
        lines = ["set -e", f"echo 0 > {self.subsystem}/attr_allow_any_host"]
        for nqn in nqns:
            lines += [
                f"mkdir {ROOT}/hosts/{nqn}",
                f"ln -s {ROOT}/hosts/{nqn} {self.subsystem}/allowed_hosts/{nqn}",
            ]
        self.guest.check("\n".join(lines))

    def require_keys(self, hosts: dict[str, tuple[str, str, str]]) -> None:
        """Lets these hosts in, with their key, the target's own, and the DH group. Linux 6.12 takes that group whatever
        a host offers, unless it offers one alone."""
        self.allow_hosts(*hosts)
        lines = ["set -e"]
        for nqn, values in hosts.items():
            names = ("dhchap_key", "dhchap_ctrl_key", "dhchap_dhgroup")
            lines += [
                f"echo {value} > {ROOT}/hosts/{nqn}/{name}"
                for name, value in zip(names, values, strict=True)
            ]
        self.guest.check("\n".join(lines))

    def refer(self, path: int, name: str, address: str, service: str) -> None:
        """Adds a referral to another discovery controller to a port."""
        directory = f"{ROOT}/ports/{path + 1}/referrals/{name}"
        self.guest.check(
            f"set -e\nmkdir {directory}\necho tcp > {directory}/addr_trtype\n"
            f"echo ipv4 > {directory}/addr_adrfam\necho {address} > {directory}/addr_traddr\n"
            f"echo {service} > {directory}/addr_trsvcid\necho 1 > {directory}/enable"
        )

    def attribute(self, name: str) -> str:
        """An attribute of the subsystem, `model` for `attr_model`."""
        return self.guest.check(f"cat {self.subsystem}/attr_{name}")

    def set_attribute(self, name: str, value: str) -> None:
        """Sets an attribute of the subsystem."""
        self.guest.check(f"echo {value} > {self.subsystem}/attr_{name}")

    def namespaces(self) -> list[NamespaceFacts]:
        """What configfs and the block layer say about the enabled namespaces."""
        script = f"""
            for ns in {self.subsystem}/namespaces/*; do
                [ "$(cat $ns/enable)" = 1 ] || continue
                device=$(cat $ns/device_path)
                echo "$(basename $ns) $device $(blockdev --getsize64 $device)" \
                    "$(cat $ns/ana_grpid) $(cat $ns/device_uuid) $(cat $ns/device_nguid)"
            done"""
        facts = []
        for line in self.guest.check(script).splitlines():
            nsid, device, size, group, uuid, nguid = line.split()
            facts.append(
                NamespaceFacts(int(nsid), device, int(size), int(group), uuid, nguid.replace("-", ""))
            )
        return facts

    def wait_io(self, source_runs: Callable[[], bool]) -> None:
        """Returns once I/O is done on a namespace, or when its source does not run any more."""
        script = "cat /sys/block/nullb0/stat /sys/block/loop0/stat"
        before = self.guest.check(script)
        wait_until(
            "I/O at the target",
            15,
            lambda: self.guest.check(script) != before or not source_runs(),
            0.05,
        )

    def read_device(self, nsid: int, offset: int, length: int) -> str:
        """Bytes behind a namespace, in hexadecimal, past the page cache."""
        dump = self.guest.check(
            f"dd if={self.device(nsid)} iflag=direct,skip_bytes,count_bytes bs=4096 skip={offset} "
            f"count={length} status=none | xxd -p"
        )
        return re.sub(r"\s", "", dump)

    def corrupt_device(self, nsid: int) -> None:
        """Writes noise over everything behind a namespace, past the page cache."""
        self.guest.check(
            f"dd if=/dev/urandom of=/tmp/noise bs=1M count=1 status=none\n"
            f"size=$(blockdev --getsize64 {self.device(nsid)})\n"
            f"for i in $(seq 0 $((size / 1048576 - 1))); do\n"
            f"dd if=/tmp/noise of={self.device(nsid)} bs=1M seek=$i count=1 oflag=direct "
            f"status=none || exit 1\ndone\nrm /tmp/noise",
            30,
        )
