"""The kernel's NVMe host in the guest: `nvme-cli`, sysfs and fio."""

import json
import re
from dataclasses import dataclass
from typing import Any

from guest import Guest, Job, wait_until

HOST_NQN = "nqn.2026-01.io.pollux:kernel-host"
STAT_WORDS = 17  # in a block device's `stat`: reads are the first, writes the fifth
HOST_ID = "7c9a3f60-5f0e-4b4f-9c3d-0a1b2c3d4e5f"
OTHER_HOST_ID = "7c9a3f60-5f0e-4b4f-9c3d-%012x"  # of a host with a name of its own: the kernel wants one for each


@dataclass(frozen=True)
class Path:
    """One path to a namespace as sysfs has it."""

    controller: str
    traddr: str
    trsvcid: str
    state: str
    ana_state: str
    ana_group: int
    ios: int


@dataclass(frozen=True)
class Fio:
    """How a fio run ended."""

    status: int
    output: str

    @property
    def passed(self) -> bool:
        """No I/O error and no verify error."""
        return self.status == 0 or self.fell_at_its_end

    @property
    def fell_at_its_end(self) -> bool:
        """Whether fio, all of its I/O done and told without an error, freed memory twice on its way out: its own fault."""
        errors = re.findall(r"\berr= *(\d+)", self.output)
        done = "Run status group" in self.output and errors != [] and set(errors) == {"0"}
        return self.status == 134 and done and "free(): double free" in self.output

    @property
    def found_corruption(self) -> bool:
        """Whether it stopped because data was not what had been written."""
        pattern = r"verify: bad|crc32c: verify failed"
        return self.status != 0 and re.search(pattern, self.output) is not None

    def explain(self) -> str:
        """Its last words, for a failed case."""
        return f"fio ended with {self.status}: {self.output.strip()[-400:]}"


class KernelHost:
    """Connections of the guest to one subsystem, as one host."""

    def __init__(self, guest: Guest, nqn: str, host: str = HOST_NQN, number: int | None = None) -> None:
        self.guest = guest
        self.nqn = nqn
        self.host = host
        self.host_id = HOST_ID if number is None else OTHER_HOST_ID % number

    def nvme(self, arguments: str, timeout_s: float = 20) -> str:
        """Runs nvme-cli; failure raises with what it said."""
        return self.guest.check(f"nvme {arguments}", timeout_s)

    def nvme_json(self, arguments: str, timeout_s: float = 20) -> Any:
        """Runs nvme-cli for its JSON output."""
        text = self.nvme(f"{arguments} -o json", timeout_s)
        return json.loads(text[text.index("{") :])

    def connect(self, address: tuple[str, int], options: str = "", timeout_s: float = 30) -> None:
        """Connects to the subsystem at an address."""
        self.nvme(self.connect_arguments(address, options), timeout_s)

    def plain_connect_script(self, address: tuple[str, int], more: str = "") -> str:
        """A script that connects with two I/O queues past nvme-cli, whose version does not know of TLS."""
        options = (
            f"transport=tcp,traddr={address[0]},trsvcid={address[1]},nqn={self.nqn},hostnqn={self.host},"
            f"hostid={self.host_id},nr_io_queues=2{more}"
        )
        return f"echo {options} > /dev/nvme-fabrics"

    def tls_connect_script(self, address: tuple[str, int]) -> str:
        """A script that connects so by TLS."""
        return self.plain_connect_script(address, ",tls")

    def connect_arguments(self, address: tuple[str, int], options: str = "") -> str:
        """The nvme-cli arguments of a connect."""
        return (
            f"connect -t tcp -a {address[0]} -s {address[1]} -n {self.nqn} "
            f"-q {self.host} -I {self.host_id} --reconnect-delay=1 {options}"
        )

    def disconnect(self) -> None:
        """Ends every connection of the guest."""
        self.guest.check("nvme disconnect-all", 40)

    def controllers(self) -> list[str]:
        """The controllers of the subsystem: `nvme0`, ..."""
        script = f"grep -lx '{self.nqn}' /sys/class/nvme/nvme*/subsysnqn 2>/dev/null; true"
        return re.findall(r"/(nvme\d+)/", self.guest.check(script))

    def controller_state(self, controller: str) -> str:
        """`live`, `connecting`, ... or an empty string once it is gone."""
        return self.guest.check(f"cat /sys/class/nvme/{controller}/state 2>/dev/null; true")

    def namespaces(self) -> dict[int, str]:
        """Block device name (`nvme0n1`) by NSID."""
        script = (
            "for head in /sys/class/nvme-subsystem/nvme-subsys*; do\n"
            f'[ "$(cat $head/subsysnqn 2>/dev/null)" = "{self.nqn}" ] || continue\n'
            "for disk in $head/nvme*n*; do\n"
            'nsid=$(cat $disk/nsid 2>/dev/null) && echo "$nsid $(basename $disk)"\n'
            "done; done; true"
        )
        # The file of a namespace that is only being made may be there and say nothing yet.
        found = re.findall(r"^(\d+) (\S+)$", self.guest.check(script), re.MULTILINE)
        return {int(nsid): disk for nsid, disk in found}

    def device(self, nsid: int = 1, timeout_s: float = 10) -> str:
        """The device file of a namespace, as soon as it is there and has a size."""

        def find() -> str | None:
            disk = self.namespaces().get(nsid)
            if disk is None:
                return None
            size = self.guest.check(f"cat /sys/block/{disk}/size /dev/null; test -b /dev/{disk}")
            return f"/dev/{disk}" if int(size) > 0 else None

        return wait_until(f"a block device for namespace {nsid}", timeout_s, find)

    def paths(self, device: str) -> list[Path]:
        """The paths of a namespace's device, one per connected controller."""
        disk = device.rsplit("/", 1)[1]
        subsystem, nsid = re.fullmatch(r"nvme(\d+)n(\d+)", disk).groups()  # type: ignore[union-attr]
        # A path may go while it is read: what is not complete is not there.
        script = (
            f"for path in /sys/class/nvme-subsystem/nvme-subsys{subsystem}/nvme*/"
            f"nvme{subsystem}c*n{nsid}; do\n"
            "echo $(basename $(dirname $path)) $(cat $path/../address $path/../state "
            "$path/ana_state $path/ana_grpid $path/stat 2>/dev/null)\n"
            "done"
        )
        paths = []
        for line in self.guest.check(script).splitlines():
            words = line.split()
            if len(words) != 5 + STAT_WORDS:
                continue
            controller, address, state, ana_state, group = words[:5]
            fields = dict(item.split("=", 1) for item in address.split(","))
            reads, writes = int(words[5]), int(words[9])
            paths.append(
                Path(
                    controller,
                    fields["traddr"],
                    fields["trsvcid"],
                    state,
                    ana_state,
                    int(group),
                    reads + writes,
                )
            )
        return sorted(paths, key=lambda path: path.traddr)

    def wait_paths(self, device: str, count: int, timeout_s: float = 10) -> list[Path]:
        """The paths, once `count` of them are live."""

        def find() -> list[Path] | None:
            paths = [path for path in self.paths(device) if path.state == "live"]
            return paths if len(paths) == count else None

        return wait_until(f"{count} live paths of {device}", timeout_s, find)

    def set_policy(self, policy: str) -> None:
        """Native multipath's I/O policy: `numa`, `round-robin` or `queue-depth`."""
        self.guest.check(
            f"for head in /sys/class/nvme-subsystem/nvme-subsys*; do\n"
            f'[ "$(cat $head/subsysnqn)" != "{self.nqn}" ] || echo {policy} > $head/iopolicy\ndone'
        )

    @staticmethod
    def fio_script(device: str, options: str) -> str:
        """A fio command that verifies what it writes."""
        return (
            f"cd /tmp && fio --name=job --filename={device} --direct=1 --ioengine=libaio "
            f"--verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=1 "
            f"--eta=never --output-format=normal {options}"
        )

    def fio(self, device: str, options: str, timeout_s: float = 60) -> Fio:
        """Runs fio to its end."""
        result = self.guest.run(self.fio_script(device, options), timeout_s)
        return Fio(result.status, result.output)

    def start_fio(self, device: str, options: str, timeout_s: float = 60) -> "FioRun":
        """Starts fio and returns once it has begun to do I/O."""
        disk = device.rsplit("/", 1)[1]
        before = self.ios(disk)
        run = FioRun(self.guest.start(self.fio_script(device, options), timeout_s))
        wait_until("the first I/O of fio", 15, lambda: self.ios(disk) > before + 8 or not run.running())
        return run

    def ios(self, disk: str) -> int:
        """Reads and writes that were completed on a block device so far."""
        return int(self.guest.check(f"set -- $(cat /sys/block/{disk}/stat); echo $(($1 + $5))"))


class FioRun:
    """A fio that runs while the case goes on."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.job.running()

    def finish(self) -> Fio:
        """Waits for its end."""
        result = self.job.wait()
        return Fio(result.status, result.output)
