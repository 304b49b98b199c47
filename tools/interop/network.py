"""A network between our host and a target that takes what the host sends and delivers it late."""

import queue
import socket
import threading
from dataclasses import dataclass, field

Address = tuple[str, int]


def dial(address: Address) -> socket.socket:
    """A connection that sends at once."""
    connection = socket.create_connection(address, timeout=30)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@dataclass
class Line:
    """One connection of a host, and the one to the target that belongs to it."""

    host: socket.socket
    target: socket.socket
    holds: threading.Event
    kept: bytes = b""
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    late: "queue.Queue[str]" = field(default_factory=queue.Queue)

    def start(self) -> None:
        """Begins to carry bytes both ways."""
        for carry in (self.carry_to_target, self.carry_to_host):
            threading.Thread(target=carry, daemon=True).start()

    def carry_to_target(self) -> None:
        """What is held stays here; that the host has gone is not told."""
        while data := receive(self.host):
            if self.holds.is_set():
                self.kept += data
                self.held.set()
            else:
                send(self.target, data)

    def carry_to_host(self) -> None:
        """What the target says of what was delivered late is told to nobody but the case."""
        while data := receive(self.target):
            if self.released.is_set():
                self.late.put("answered")
            else:
                send(self.host, data)
        self.late.put("closed")

    def release(self) -> None:
        """Delivers what was held."""
        self.released.set()
        send(self.target, self.kept)


def receive(connection: socket.socket) -> bytes:
    """The next bytes; none at the end."""
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def send(connection: socket.socket, data: bytes) -> None:
    """Sends to one that may have gone."""
    try:
        connection.sendall(data)
    except OSError:
        pass


class Network:
    """Carries the connections of one host to one address: the first is its admin queue, the second its I/O queue."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self.listener.getsockname()
        self.lines: list[Line] = []
        self.is_cut = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Takes hosts in until the network is closed."""
        while True:
            try:
                host, _ = self.listener.accept()
            except OSError:
                return
            if self.is_cut:
                host.close()
                continue
            host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(host, dial(self.target), threading.Event())
            self.lines.append(line)
            line.start()

    def cut(self) -> None:
        """Ends the host's side of every connection, for good."""
        self.is_cut = True
        for line in self.lines:
            line.host.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends everything."""
        self.listener.close()
        for line in self.lines:
            for connection in (line.host, line.target):
                connection.close()
