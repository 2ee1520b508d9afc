"""The platform for tests: the stand-in, and servers that answer what no platform should."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from receiver.platform.client import Credentials
from receiver.simulator import PushFaults, PushTarget, Rules, Simulator

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

APP_ID, APP_KEY = "2RYN7CQHL1M00000", "WVNA4A000000"
CREDENTIALS = Credentials(account="default", app_id=APP_ID, app_key=APP_KEY)
SETTING = (("default", APP_ID, APP_KEY),)  # of Settings.platform_credentials
MOBILE = "15608911090"
CODE = "73519426"
GOOD_ANSWER = (
    '{"returnStatus":"1 ","message":"成功","remainPoint":"241","taskId":"3313746","successCounts":"1"}'.encode()
)


def stand_in(
    push_url: str | None = None, *, tls: ssl.SSLContext | None = None, how: PushFaults | None = None, **rules: Any
) -> Simulator:
    """A stand-in on a port of its own; its first task id and balance give the page's own sample."""
    return Simulator(
        bind=("127.0.0.1", 0),
        rules=Rules(**{"balance": 242} | rules),
        how=how or PushFaults(failures=0, replies=0, hurry=True),
        target=PushTarget(receipt_url=push_url, reply_url=push_url) if push_url else None,
        seed=1,
        first_task_id=3313746,
        tls=tls,
    )


def http(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """One HTTP answer as bytes, the last of its connection: `scripted` closes, so no client must ask there again."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + body


@contextmanager
def scripted(
    behave: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """A server whose every connection, once a whole request is read, is left to `behave`. Gives port and requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []
    stopping = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            wrapped = tls.wrap_socket(connection, server_side=True) if tls else connection
            with wrapped:
                requests.append(_read_request(wrapped))
                behave(wrapped)
        except OSError:
            pass

    def accept() -> None:
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length and (piece := connection.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body
