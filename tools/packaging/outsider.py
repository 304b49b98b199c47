#!/usr/bin/env python3
"""Builds and runs a program that is no part of this workspace, from the packages that `cargo package` has made.

    cargo package --workspace --no-verify --allow-dirty --locked && tools/packaging/outsider.py

It knows the library crates by name and version, as a program does that has them from a registry; outsider.rs is all of it.
What a package lacks that builds here by luck is found so. Nothing is downloaded that the workspace does not have.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
LIBRARIES = ["pollux-reactor", "pollux-nvme-tcp", "pollux-multipath", "pollux-c"]

MANIFEST = """
[package]
name = "outsider"
version = "1.0.0"
edition = "2024"
rust-version = "{rust_version}"

[[bin]]
name = "outsider"
path = "outsider.rs"

[workspace]

[dependencies]
{dependencies}

[patch.crates-io]
{patches}
"""


def main():
    told = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE)
    metadata = json.loads(told.stdout)
    target = pathlib.Path(metadata["target_directory"])
    packages = {package["name"]: package for package in metadata["packages"]}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        dependencies, patches = [], []
        for name in LIBRARIES:
            package = packages[name]
            version = package["version"]
            with tarfile.open(target / "package" / f"{name}-{version}.crate") as packed:
                packed.extractall(folder, filter="data")
            unpacked = folder / f"{name}-{version}"
            if not (unpacked / "README.md").read_text().startswith(f"# {name}\n"):
                sys.exit(f"outsider.py: {name} is packaged without its own README.md")
            if package["rust_version"] is None:
                sys.exit(f"outsider.py: {name} says no rust-version")
            dependencies.append(f'{name} = "{version}"')
            patches.append(f'{name} = {{ path = "{unpacked.name}" }}')
        (folder / "Cargo.toml").write_text(MANIFEST.format(
            rust_version=packages["pollux-multipath"]["rust_version"],
            dependencies="\n".join(dependencies), patches="\n".join(patches)))
        shutil.copy(HERE / "outsider.rs", folder)
        # The versions that the workspace has; cargo leaves out what is not needed.
        shutil.copy(ROOT / "Cargo.lock", folder)
        # In a place of its own: libpollux.rlib has one name, whichever sources it is of, and would stand in that of the
        # workspace.
        run = subprocess.run(
            ["cargo", "run", "--offline", "--target-dir", str(target / "outsider")],
            cwd=folder, stdout=subprocess.PIPE, text=True)
        tree = subprocess.run(
            ["cargo", "tree", "--offline", "--prefix", "none", "--edges", "normal"],
            cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0 or run.stdout != "written, read, told\n":
        sys.exit(f"outsider.py: the program has ended with {run.returncode} and said {run.stdout!r}")
    # Whoever asks for no feature does not build what only a feature needs.
    built = {line.split()[0] for line in tree.stdout.splitlines() if line}
    needless = built & {"base64", "crypto-bigint", "s2n-tls", "serde_json", "strsim"}
    if "pollux-multipath" not in built or needless:
        sys.exit(f"outsider.py: without a feature there is {sorted(needless)}")


main()
