"""What the suite needs from the distribution, by its own package client.

Debian's backports carry the kernel (and, on a machine whose `qemu-utils` comes from there, the only
emulator that can be installed beside it). The machine's apt configuration stays as it is: the suite
has a source list and package lists of its own in the cache, made from the machine's mirrors.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KERNEL_PATTERN = r"^linux-image-6\.12\.[0-9]+.*-cloud-amd64-unsigned$"

# Program to look for, and the package that has it. Only what is missing is installed.
PROGRAMS = {
    "/bin/busybox": "busybox-static",
    "/usr/sbin/nvme": "nvme-cli",
    "/usr/bin/fio": "fio",
    "/sbin/mke2fs": "e2fsprogs",
    "/sbin/blkdiscard": "util-linux",
    "/usr/bin/dpkg-deb": "dpkg",
}
EMULATOR = ("qemu-system-x86_64", "qemu-system-x86")

# What makes the handshakes for the kernel's TLS, and what puts keys into its keyring. They are of a release that has them,
# and come with that release's libraries, the C library included.
TLS_PACKAGES = ("ktls-utils", "keyutils")
TLS_PROGRAMS = ("usr/sbin/tlshd", "usr/bin/keyctl")
TLS_RELEASE = "trixie"


class PreparationError(Exception):
    """The machine cannot be made ready; the text says what is missing."""


def run(command: list[str], timeout_s: float, cwd: Path | None = None) -> str:
    """Runs a program of the machine and returns what it printed; failure says what it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise PreparationError(f"{command[0]}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise PreparationError(f"no end after {timeout_s:.0f} s: {' '.join(command)}") from error
    if done.returncode != 0:
        tail = "\n  ".join(done.stdout.strip().splitlines()[-12:])
        raise PreparationError(f"status {done.returncode}: {' '.join(command)}\n  {tail}")
    return done.stdout


def os_codename() -> str:
    """The suite name of this release, as its own os-release says."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', text, re.MULTILINE)
    if found is None:
        raise PreparationError("/etc/os-release names no VERSION_CODENAME: not a Debian release?")
    return found.group(1)


class Apt:
    """The package client with a source list of our own: the machine's mirrors plus backports, or those mirrors with
    another release, of which nothing is installed."""

    def __init__(self, cache: Path, release: str | None = None) -> None:
        self.release = release
        self.root = cache / (f"apt-{release}" if release else "apt")
        self.codename = os_codename()
        self.backports = f"{self.codename}-backports"
        self.updated = False

    def options(self) -> list[str]:
        """Options that put the client onto our own lists."""
        options = [
            "-q",
            *("-o", f"Dir::Etc::sourcelist={self.root / 'sources.list'}"),
            *("-o", "Dir::Etc::sourceparts=-"),
            *("-o", f"Dir::State::lists={self.root / 'lists'}"),
            *("-o", "APT::Sandbox::User=root"),
            *("-o", "DPkg::Lock::Timeout=180"),
        ]
        if self.release:
            # As if nothing were installed: every library is wanted.
            options += [
                *("-o", f"Dir::State::status={self.root / 'status'}"),
                *("-o", f"Dir::Cache::archives={self.root / 'archives'}"),
            ]
        return options

    def update(self) -> None:
        """Writes the source list and fetches the package lists, once a run."""
        if self.updated:
            return
        for folder in ("lists", "archives"):
            (self.root / folder / "partial").mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        (self.root / "sources.list").write_text(self.source_list(), encoding="utf-8")
        run(["apt-get", *self.options(), "update"], timeout_s=300)
        self.updated = True

    def source_list(self) -> str:
        """The machine's sources of this release, and the backports suite of the same mirror."""
        targets = run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
                "Created-By: Packages",
            ],
            timeout_s=60,
        )
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        lines: set[str] = set()
        for target in targets.split():
            uri, release, component = target.split("|")
            if component != "main" or not release.startswith(self.codename):
                continue
            if self.release:
                if release == self.codename:
                    lines.add(f"deb {signed}{uri} {self.release} main\n")
                continue
            lines.add(f"deb {signed}{uri} {release} main\n")
            if release == self.codename:
                lines.add(f"deb {signed}{uri} {self.backports} main\n")
        if not lines:
            raise PreparationError(f"the machine's apt sources name no mirror of {self.codename}")
        return "".join(sorted(lines))

    def install(self, packages: list[str], suite: str | None = None) -> None:
        """Installs packages, from `suite` where one is given."""
        self.update()
        release = ["-t", suite] if suite else []
        print(f"installing {' '.join(packages)}", flush=True)
        run(
            [
                "apt-get",
                *self.options(),
                "install",
                "-y",
                "--no-install-recommends",
                *release,
                *packages,
            ],
            timeout_s=900,
        )

    def download(self, package: str, into: Path) -> Path:
        """Downloads one package without installing it."""
        self.update()
        into.mkdir(parents=True, exist_ok=True)
        run(["apt-get", *self.options(), "download", package], timeout_s=600, cwd=into)
        files = sorted(into.glob(f"{package}_*.deb"))
        if not files:
            raise PreparationError(f"apt-get download left no file for {package}")
        return files[-1]

    def download_all(self, packages: tuple[str, ...]) -> list[Path]:
        """Downloads packages with everything that they need, without installing them."""
        self.update()
        options = ["install", "-y", "--download-only", "--no-install-recommends"]
        run(["apt-get", *self.options(), *options, *packages], timeout_s=600)
        return sorted((self.root / "archives").glob("*.deb"))

    def newest(self, pattern: str) -> str:
        """The newest package whose name matches."""
        self.update()
        found = run(
            ["apt-cache", *self.options(), "pkgnames"],
            timeout_s=60,
        ).split()
        names = [name for name in found if re.match(pattern, name)]
        if not names:
            raise PreparationError(f"no package matches {pattern} in {self.codename} or backports")
        return max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def install_programs(cache: Path) -> None:
    """Sees to it that every program the suite runs, here or in the guest, is on this machine."""
    missing = sorted({package for path, package in PROGRAMS.items() if not Path(path).exists()})
    apt = Apt(cache)
    if missing:
        apt.install(missing)
    if shutil.which(EMULATOR[0]) is None:
        apt.install([EMULATOR[1]], apt.backports if tools_are_backported() else None)
    absent = [path for path in PROGRAMS if not Path(path).exists()]
    if shutil.which(EMULATOR[0]) is None:
        absent.append(EMULATOR[0])
    if absent:
        raise PreparationError(f"still missing after installation: {', '.join(absent)}")


def tools_are_backported() -> bool:
    """Whether `qemu-utils` is here from backports; the emulator must then come from there too."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "qemu-utils"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=30,
        check=False,
    )
    return "~bpo" in query.stdout


def unpack_kernel(cache: Path) -> Path:
    """The unpacked kernel package; the one in the cache stays until the cache is removed."""
    root = cache / "kernel"
    if list(root.glob("boot/vmlinuz-*")):
        return root
    apt = Apt(cache)
    package = apt.download(apt.newest(KERNEL_PATTERN), cache / "packages")
    # Unpacked beside its place and moved there, so that an interrupted run leaves no half kernel.
    staging = cache / "kernel.part"
    shutil.rmtree(staging, ignore_errors=True)
    run(["dpkg-deb", "-x", str(package), str(staging)], timeout_s=120)
    package.unlink()
    shutil.rmtree(root, ignore_errors=True)
    staging.rename(root)
    return root


def unpack_tls(cache: Path) -> Path:
    """The unpacked programs for the kernel's TLS, with their libraries; they stay until the cache is removed."""
    root = cache / "tls"
    if all((root / program).exists() for program in TLS_PROGRAMS):
        return root
    apt = Apt(cache, TLS_RELEASE)
    staging = cache / "tls.part"
    shutil.rmtree(staging, ignore_errors=True)
    for package in apt.download_all(TLS_PACKAGES):
        run(["dpkg-deb", "-x", str(package), str(staging)], timeout_s=120)
    shutil.rmtree(apt.root)
    shutil.rmtree(root, ignore_errors=True)
    staging.rename(root)
    return root
