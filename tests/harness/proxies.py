"""An HTTP proxy for tests: passes everything on to one port of this machine, whatever name it is asked for."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Proxy:
    """A proxy, and the heads of the requests that it was asked, as they came."""

    port: int
    heads: list[bytes] = field(default_factory=list)

    def url(self, user: str = "") -> str:
        """Its URL, with user and password."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}"


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1])
        threading.Thread(target=_listen, args=(listener, proxy, port), daemon=True).start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _listen(listener: socket.socket, proxy: Proxy, port: int) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, proxy, port), daemon=True).start()


def _serve(client: socket.socket, proxy: Proxy, port: int) -> None:
    with client, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        read = b""
        while b"\r\n\r\n" not in read:
            piece = client.recv(65536)
            if not piece:
                return
            read += piece
        head, _, rest = read.partition(b"\r\n\r\n")
        proxy.heads.append(head)
        if head.startswith(b"CONNECT "):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            method, target, version = head.partition(b"\r\n")[0].split(b" ")
            path = b"/" + target.split(b"/", 3)[3]
            rest = b" ".join((method, path, version)) + head[head.index(b"\r\n") :] + b"\r\n\r\n" + rest
        server.sendall(rest)
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join(10)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
