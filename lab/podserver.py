"""The program in a pod: ``podserver.py NAME HTTP_PORT ECHO_PORT``. Standard library only; starts in 20 ms.

HTTP GET / responds with the name and a newline, GET /client with the source address of the request. UDP echo responds
to each datagram with its content and the name. TCP echo sends the name and a newline once, and then returns the
received data until the client closes the connection.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections.abc import Callable

SO_RCVBUFFORCE = 33  # Linux, asm-generic/socket.h; Python has no name for it
ROOM = 2 << 20
"""In bytes. The kernel doubles it, and counts about 800 bytes for each small datagram."""


def listen(kind: int, port: int) -> socket.socket:
    """A socket for both families on all addresses."""
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setblocking(False)
    sock.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(512)
    return sock


def widen(sock: socket.socket) -> None:
    """Buffers one second of requests at the rate of the lab's streams, for a busy machine that does not schedule this
    process for 1 s. The default buffer is full after 0.1 s."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    except PermissionError:  # not root
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)


class Server:
    def __init__(self, name: str, http_port: int, echo_port: int) -> None:
        self.name = name.encode()
        self.selector = selectors.DefaultSelector()
        self.udp = listen(socket.SOCK_DGRAM, echo_port)
        widen(self.udp)
        self.selector.register(self.udp, selectors.EVENT_READ, self.on_datagrams)
        self.accept_on(listen(socket.SOCK_STREAM, http_port), self.on_request, b"")
        self.accept_on(listen(socket.SOCK_STREAM, echo_port), self.on_echo, self.name + b"\n")

    def accept_on(self, sock: socket.socket, then: Callable[[socket.socket], None], hello: bytes) -> None:
        def accept(_: socket.socket) -> None:
            try:
                connection, _peer = sock.accept()
                connection.setblocking(False)
                self.selector.register(connection, selectors.EVENT_READ, then)
                if hello:
                    connection.send(hello)
            except OSError:  # closed before it was accepted, or before the greeting (its reader detects this)
                return

        self.selector.register(sock, selectors.EVENT_READ, accept)

    def on_datagrams(self, _: socket.socket) -> None:
        for _i in range(256):  # several per wake-up, limited to give connections their turn
            try:
                data, peer = self.udp.recvfrom(2048)
                self.udp.sendto(data + self.name, peer)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an earlier answer
                continue

    def on_request(self, connection: socket.socket) -> None:
        try:
            if request := connection.recv(65536):  # a GET fits in one segment
                peer = str(connection.getpeername()[0]).removeprefix("::ffff:").encode()
                body = (peer if request.startswith(b"GET /client") else self.name) + b"\n"
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.send(head + body)
        except OSError:
            pass
        self.hang_up(connection)

    def on_echo(self, connection: socket.socket) -> None:
        try:
            if data := connection.recv(65536):
                connection.send(data)
                return
        except OSError:
            pass
        self.hang_up(connection)

    def hang_up(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        connection.close()

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).serve()
