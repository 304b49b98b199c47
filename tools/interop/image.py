"""The guest's two disks in the making: an initramfs with modules, and an ext4 image with programs."""

import hashlib
import lzma
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import packages
from packages import PreparationError

MODULES = (
    "virtio_blk",
    "virtio_net",
    "configfs",
    "null_blk",
    "brd",
    "loop",
    "nvmet-tcp",
    "nvme-tcp",
    "tls",
    "aesni-intel",
)

# Copied with the libraries they name into the image, at the paths they have here.
GUEST_PROGRAMS = (
    "/usr/sbin/nvme",
    "/usr/bin/fio",
    "/sbin/mke2fs",
    "/sbin/e2fsck",
    "/sbin/blkdiscard",
)

# Where the programs for TLS are in the image, beside the libraries that they run with.
TLS_FOLDER = "tls"

INIT = Path(__file__).with_name("guest-init.sh")


@dataclass(frozen=True)
class Boot:
    """The files that a guest is started from."""

    kernel: Path
    initramfs: Path
    disk: Path


def prepare(cache: Path) -> Boot:
    """Installs, downloads and builds what is not in the cache yet."""
    if os.uname().machine != "x86_64":
        raise PreparationError(f"the guest is x86-64; this machine is {os.uname().machine}")
    cache.mkdir(parents=True, exist_ok=True)
    packages.install_programs(cache)
    kernel_root = packages.unpack_kernel(cache)
    tls_root = packages.unpack_tls(cache)
    kernel = next(kernel_root.glob("boot/vmlinuz-*"))
    boot = Boot(kernel, cache / "initramfs.cpio", cache / "programs.ext4")
    key = cache_key(kernel, tls_root)
    stamp = cache / "stamp"
    current = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    if current != key or not boot.initramfs.exists() or not boot.disk.exists():
        stamp.unlink(missing_ok=True)
        build_initramfs(kernel_root, boot.initramfs)
        build_disk(cache / "programs", tls_root, boot.disk)
        stamp.write_text(key, encoding="utf-8")
    return boot


def cache_key(kernel: Path, tls_root: Path) -> str:
    """Changes with the kernel, the programs and these sources."""
    digest = hashlib.sha256(kernel.name.encode())
    for source in (Path(__file__), INIT):
        digest.update(source.read_bytes())
    tls = (str(tls_root / program) for program in packages.TLS_PROGRAMS)
    for program in ("/bin/busybox", *GUEST_PROGRAMS, *tls):
        status = os.stat(program)
        digest.update(f"{program} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


class Cpio:
    """A writer of the `newc` format that the kernel unpacks."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.inode = 0

    def add(self, name: str, mode: int, data: bytes = b"", rdev: tuple[int, int] = (0, 0)) -> None:
        """Appends one entry; `mode` has the file type."""
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        for piece in (header + encoded, data):
            self.parts.append(piece + b"\0" * (-len(piece) % 4))

    def directory(self, name: str) -> None:
        """Appends a directory."""
        self.add(name, stat.S_IFDIR | 0o755)

    def link(self, name: str, to: str) -> None:
        """Appends a symbolic link."""
        self.add(name, stat.S_IFLNK | 0o777, to.encode())

    def write(self, path: Path) -> None:
        """Ends the archive and writes it."""
        self.add("TRAILER!!!", 0)
        path.write_bytes(b"".join(self.parts))


def build_initramfs(kernel_root: Path, path: Path) -> None:
    """Busybox, the modules in the order in which they load, and the init script."""
    archive = Cpio()
    for name in ("bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "t", "mnt"):
        archive.directory(name)
    # The programs' image is mounted on /t; its libraries are found at their usual places.
    for name, to in (("usr", "t/usr"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "bin")):
        archive.link(name, to)
    archive.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, Path("/bin/busybox").read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, INIT.read_bytes())
    for number, (name, data) in enumerate(ordered_modules(kernel_root)):
        archive.add(f"modules/{number:02}-{name}.ko", stat.S_IFREG | 0o644, data)
    archive.write(path)


def ordered_modules(kernel_root: Path) -> list[tuple[str, bytes]]:
    """The wanted modules after those they depend on, uncompressed."""
    # Newer packages have them in /usr.
    found = [*kernel_root.glob("lib/modules/*/kernel/**/*.ko*")]
    found += kernel_root.glob("usr/lib/modules/*/kernel/**/*.ko*")
    files = {module_name(path): path for path in found}
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name not in files:
            raise PreparationError(f"the kernel package has no module {name}")
        data = files[name].read_bytes()
        if files[name].suffix == ".xz":
            data = lzma.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends.group(1).decode().split(",") if depends else ():
            if other:
                visit(other.replace("_", "-"))
        ordered[name] = data

    for wanted in MODULES:
        visit(wanted.replace("_", "-"))
    return list(ordered.items())


def module_name(path: Path) -> str:
    """A module's name with one spelling of the dash."""
    return path.name.split(".ko")[0].replace("_", "-")


def build_disk(staging: Path, tls_root: Path, disk: Path) -> None:
    """An ext4 image with the guest's programs, their libraries and nothing else."""
    shutil.rmtree(staging, ignore_errors=True)
    for program in GUEST_PROGRAMS:
        for source in (program, *libraries(program)):
            # On a merged-/usr system /lib and /sbin are links; in the image everything is in /usr.
            place = source if source.startswith("/usr/") else "/usr" + source
            target = staging / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(os.path.realpath(source), target)
    copy_tls(tls_root, staging / TLS_FOLDER)
    (staging / "usr" / "etc").mkdir(exist_ok=True)
    size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    blocks = (size * 5 // 4 >> 12) + 4096
    disk.unlink(missing_ok=True)
    packages.run(
        [
            "/sbin/mke2fs",
            *("-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal"),
            *("-d", str(staging), str(disk), str(blocks)),
        ],
        timeout_s=120,
    )
    shutil.rmtree(staging)


def copy_tls(root: Path, folder: Path) -> None:
    """The programs for TLS, their libraries and their loader, all in one folder."""
    folder.mkdir()
    found = root / "usr/lib/x86_64-linux-gnu"
    loader = found / "ld-linux-x86-64.so.2"
    wanted = {loader}
    for program in packages.TLS_PROGRAMS:
        command = [str(loader), "--library-path", str(found), "--list", str(root / program)]
        wanted |= {root / program, *map(Path, libraries(program, command))}
    for source in wanted:
        shutil.copy(os.path.realpath(source), folder / source.name)


def libraries(program: str, command: list[str] | None = None) -> list[str]:
    """The shared libraries that the loader would open for a program, and the loader."""
    listing = packages.run(command or ["ldd", program], timeout_s=30)
    if "not found" in listing:
        raise PreparationError(f"a library of {program} is missing:\n{listing}")
    return re.findall(r"(/\S+) \(0x", listing)
