"""What a case works with: the guest, the kernel's target and host in it, and our programs."""

import socket
import tempfile
from pathlib import Path

import nvmet
import ours
from guest import GUEST_ADDRESSES, MACHINE_ADDRESSES, Guest
from image import Boot
from kernel_host import KernelHost
from nvmet import Nvmet
from ours import Programs

Address = tuple[str, int]


def free_port(address: str) -> int:
    """A port that nobody listens on at an address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Bench:
    """Made anew for each case, except for the guest, which is kept while it is in order."""

    kernel: Nvmet
    initiator: KernelHost

    def __init__(self, boot: Boot, files: dict[str, Path]) -> None:
        self.boot = boot
        # The sockets' names must be short, so this cannot be in the cache.
        self.directory = Path(tempfile.mkdtemp(prefix="pollux-interop-"))
        self.programs = Programs(files, self.directory)
        self.running: Guest | None = None
        self.boots_s: list[float] = []
        # Where the kernel's target listens, and where ours does, path by path.
        self.kernel_ports = [(address, free_port(address)) for address in GUEST_ADDRESSES]
        self.our_ports = [(address, free_port(address)) for address in MACHINE_ADDRESSES]

    @property
    def guest(self) -> Guest:
        """The guest; boots it if there is none."""
        if self.running is None:
            place = self.directory / f"boot{len(self.boots_s)}"
            ports = tuple(port for _, port in self.kernel_ports)
            self.running = Guest(self.boot, place, ports)
            self.boots_s.append(self.running.boot_s)
            self.running.kernel_errors()
        return self.running

    def begin(self, direction: str) -> None:
        """Sets up what a case of a direction starts from."""
        guest = self.guest
        ports = tuple(port for _, port in self.kernel_ports)
        self.kernel = Nvmet(guest, ports)
        self.initiator = KernelHost(guest, ours.NQN if direction == "target" else nvmet.NQN)
        if direction != "target":
            self.kernel.build()

    def backing_file(self, size_mib: int) -> Path:
        """A new file of zeroes for a namespace of our target."""
        path = self.directory / "namespace.img"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size_mib << 20)
        return path

    def end(self) -> list[str]:
        """Undoes what a case did; returns the errors that the kernel logged since the last time."""
        guest = self.running
        if guest is None:
            self.programs.kill_all()
            return []
        guest.restore_links()
        # Programs go last: a target must still be there for an orderly disconnect.
        try:
            guest.settle()
            guest.check("umount -f /mnt 2>/dev/null; true")
            self.initiator.disconnect()
        finally:
            self.programs.kill_all()
        self.kernel.remove()
        return guest.kernel_errors()

    def abandon_guest(self) -> None:
        """Ends the guest; the next case boots another."""
        self.programs.kill_all()
        if self.running is not None:
            self.running.stop()
            self.running = None

    def close(self) -> None:
        """Ends everything."""
        self.abandon_guest()
