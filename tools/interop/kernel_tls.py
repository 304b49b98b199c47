"""TLS of the guest's kernel: the daemon that makes its handshakes, and the keyring that it takes keys from."""

from guest import Guest

FOLDER = "/t/tls"
RUN = f"{FOLDER}/ld-linux-x86-64.so.2 --library-path {FOLDER} {FOLDER}"
LOG = "/tmp/tlshd.log"


class KernelTls:
    """Keys and handshakes of the guest. The daemon stays; it is started by the first case that needs it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.guest.check(
            f"grep -q 'linked into our session' {LOG} && exit 0\n"
            "printf '[debug]\\nloglevel=1\\n[authenticate]\\nkeyrings=.nvme\\n' > /tmp/tlshd.conf\n"
            f"setsid {RUN}/tlshd -s -c /tmp/tlshd.conf > {LOG} 2>&1 < /dev/null &\n"
            f"until grep -q 'linked into our session' {LOG}; do sleep 0.05; done"
        )

    def set_keys(self, *keys: tuple[str, str]) -> None:
        """Makes these the keys of the guest: identity and TLS PSK in hexadecimal digits. Linux 6.12 derives nothing."""
        lines = ["set -e", f"{RUN}/keyctl clear %:.nvme"]
        for identity, key in keys:
            lines.append(f"echo {key} | {RUN}/keyctl padd -x psk '{identity}' %:.nvme")
        self.guest.check("\n".join(lines))

    def log(self) -> str:
        """What the daemon has said."""
        return self.guest.check(f"cat {LOG}")
