"""The fast path of a push: from the bytes of a whole request to the batch writer, and back to the bytes of its answer.

Handles the requests that it fully understands, which are all pushes that the platform is known to send, and refuses
wrong secrets cheaply. Everything else goes to the Flask route, which is the reference; a test suite keeps both equal.
A request's head is parsed once, by gunicorn's parser, and cached for pushes that begin with the same bytes.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import flask.testing  # noqa: F401  (Flask would import it for the first answer, when no file descriptor may be left)
from gunicorn import SERVER, util
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from receiver.config import within
from receiver.core import Kind, Overloaded, ReceiverError, new_id
from receiver.intake.admission import PUSH_MAX_BYTES, Refused
from receiver.intake.batch_writer import Acknowledged
from receiver.intake.push_path import read_push_path
from receiver.server.answers import keep_alive_seconds
from receiver.web import RUNTIME
from receiver.web.access_log import PushLog, request_id
from receiver.web.push import acknowledgement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flask import Flask, Response

    from receiver.intake.secrets import PushSecret
    from receiver.runtime import Runtime

_TARGET = re.compile(r"/((?i:push)/[^?#]*)(?:\?([^#]*))?")
# Bytes beyond the Content-Length of the push before. They contain no line end, so they are only surplus body.
_LEFT_OVER = re.compile(rb"[^\r\n]{1,4096}?(?=POST /push/)")
_HEADS_MAX = 4096
_WRONG_HEADS_MAX = 256
_HEAD_MAX_BYTES = 4096  # a longer head is not cached
_ANSWERS_MAX = 256
_BODILESS_STATUSES = frozenset({204, 205})
# These change the body or what the client expects.
_REFERENCE_ONLY = frozenset({"TRANSFER-ENCODING", "EXPECT", "UPGRADE", "TRAILER"})
_IGNORED_UPGRADE = ["h2c"]  # the JDK's client offers it with every plain HTTP request, and works without it


@dataclass(frozen=True, slots=True)
class Head:
    """The parsed head of a push."""

    secret: PushSecret | None  # None: unknown secret
    method: str
    endpoint: Kind | None
    strayed: bool
    query: bytes
    body_bytes: int
    content_length: str  # empty: no such header, no body
    content_type: str | None
    forwarded_for: str | None
    request_id: str | None  # from a trusted proxy
    closes: bool


class FastPath:
    """Answers pushes without a thread for each. For one thread, except `on_done`, which the batch writer calls."""

    def __init__(self, app: Flask, cfg: Any) -> None:
        self._app = app
        self._cfg = cfg
        self._runtime: Runtime = app.extensions[RUNTIME]
        self._heads: OrderedDict[bytes, Head] = OrderedDict()
        self._wrong_heads: OrderedDict[bytes, Head] = OrderedDict()  # separate: guesses must not evict a sender's head
        self._answers: OrderedDict[tuple[Any, ...], tuple[bytes, bytes, bytes]] = OrderedDict()
        self._date = (0, b"")
        self._keep_alive = b"keep-alive\r\nKeep-Alive: timeout=%d" % keep_alive_seconds(cfg)
        self._log = PushLog(self._runtime.settings)

    @cached_property
    def enabled(self) -> bool:
        """Return whether the settings allow the fast path."""
        settings = self._runtime.settings
        return settings.push_lane and settings.ack_status not in _BODILESS_STATUSES

    def head(self, raw: bytes, client: Any) -> Head | None:
        """Return the parsed head of a request, given with its blank line. None: the request goes to Flask."""
        known = self._heads.get(raw) or self._wrong_heads.get(raw)
        if known is not None:
            return known
        head = self._read_head(raw, client)
        if head is not None and len(raw) <= _HEAD_MAX_BYTES and not head.query:
            heads, most = (self._heads, _HEADS_MAX) if head.secret else (self._wrong_heads, _WRONG_HEADS_MAX)
            heads[raw] = head
            if len(heads) > most:
                heads.popitem(last=False)
        return head

    def count_left_over(self, raw: bytes, before: Head | None, client: Any) -> int:
        """Return how many surplus bytes of the previous push precede this head. 0: none that may be skipped.

        A sender that counts characters instead of bytes sends them. They are skipped only if both pushes have a right
        secret and come directly from the sender: a proxy shares its connection among many clients.
        """
        found = _LEFT_OVER.match(raw)
        if found is None or before is None or not before.content_length or self._is_proxied(before, client):
            return 0
        head = self.head(raw[found.end() :], client)
        if head is None or not (before.secret and head.secret) or self._is_proxied(head, client):
            return 0
        return found.end()

    def _is_proxied(self, head: Head, client: Any) -> bool:
        peer = client[0] if isinstance(client, tuple) else ""
        return head.forwarded_for is not None or within(peer, self._runtime.settings.trusted_proxies)

    def admit_and_enqueue(
        self, head: Head, body: bytes, client: Any, on_done: Callable[[Acknowledged | ReceiverError], None]
    ) -> bool:
        """Admit a push and enqueue it, or refuse it. Return False if the request must go to Flask."""
        admission = self._runtime.admission
        peer = client[0] if isinstance(client, tuple) else ""
        if head.secret is None:
            on_done(admission.refuse_secret(peer, head.forwarded_for, request_id=head.request_id or new_id().hex))
            return True
        address = admission.allowed_address(peer, head.forwarded_for)
        if address is None:
            return False
        try:
            self._runtime.batch_writer.enqueue_with_callback(
                admission.admit_checked(head, body, secret=head.secret, address=address), on_done
            )
        except Overloaded:
            return False
        return True

    def answer(self, result: Acknowledged | ReceiverError, head: Head, *, closes: bool) -> bytes:
        """Return the bytes of the answer, equal to what Flask and gunicorn would send."""
        if isinstance(result, Acknowledged):
            key: tuple[Any, ...] = (result.outcome, result.push.error)
            id_text = str(result.push.id)
        else:
            key = (type(result), str(result))
            id_text = getattr(result, "request_id", None) or head.request_id or new_id().hex
        top, until_id, rest = self._answers.get(key) or self._render(key, result)
        connection = b"close" if closes else self._keep_alive
        return b"%bDate: %b\r\nConnection: %b\r\n%b%b%b" % (
            top, self._now(), connection, until_id, id_text.encode(), rest
        )  # fmt: skip

    def log_answered(self, answered: Sequence[tuple[Acknowledged | ReceiverError, Head, float]]) -> None:
        """Log answered pushes: the result, head and seconds of each."""
        answered_pushes = []
        for result, head, seconds in answered:
            if isinstance(result, Refused):
                bytes_in = head.body_bytes if head.content_length else None
                self._log.add_refused(result, method=head.method, bytes_in=bytes_in, seconds=seconds)
            else:
                answered_pushes.append((result, head.request_id, seconds))
        self._log.add(answered_pushes)

    def _render(self, key: tuple[Any, ...], result: Acknowledged | ReceiverError) -> tuple[bytes, bytes, bytes]:
        """Render an answer with Flask and cache it: the parts before the date, before the id and after it."""
        with self._app.test_request_context("/push/-", method="POST"):
            made = (
                acknowledgement(self._runtime, result)
                if isinstance(result, Acknowledged)
                else self._app.handle_user_exception(result)
            )
            response: Response = self._app.process_response(self._app.make_response(made))
        if not isinstance(result, Acknowledged):
            response.headers["X-Request-Id"] = _ID_PLACEHOLDER
        body = response.get_data()
        top = f"HTTP/1.1 {response.status}\r\nServer: {SERVER}\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        text = fields.encode("latin-1") + b"\r\n" + body
        until_id, _, rest = text.partition(
            (str(result.push.id) if isinstance(result, Acknowledged) else _ID_PLACEHOLDER).encode()
        )
        answer = (top.encode("latin-1"), until_id, rest)
        self._answers[key] = answer
        if len(self._answers) > _ANSWERS_MAX:
            self._answers.popitem(last=False)
        return answer

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._date[0]:
            self._date = (second, util.http_date(second).encode())
        return self._date[1]

    def _read_head(self, raw: bytes, client: Any) -> Head | None:
        try:
            request = Request(self._cfg, IterUnreader([raw]), client)
        except Exception:  # noqa: BLE001  (Flask's route reports the error)
            return None
        target = _TARGET.fullmatch(request.uri)
        if target is None or request.version != (1, 1):
            return None
        fields: dict[str, list[str]] = {}
        for name, value in request.headers:
            fields.setdefault(name, []).append(value)
        lengths = fields.get("CONTENT-LENGTH", [])
        path = read_push_path(unquote(target[1]))
        secret = self._runtime.admission.secrets.find(path.secret)
        if request.method != "POST" and (request.method != "GET" or secret or lengths):
            return None
        if [offered.lower() for offered in fields.get("UPGRADE", ())] == _IGNORED_UPGRADE:
            del fields["UPGRADE"]
        if _REFERENCE_ONLY & fields.keys() or len(lengths) > 1:
            return None
        written_length = lengths[0] if lengths else ""  # without it there is no body
        if not written_length.isascii():
            return None
        query = (target[2] or "").encode("latin-1")
        length = int(written_length or 0)
        if length + len(query) > PUSH_MAX_BYTES:
            return None
        return Head(
            secret=secret,
            method=request.method,
            endpoint=path.endpoint,
            strayed=path.strayed,
            query=query,
            body_bytes=length,
            content_length=written_length,
            content_type=fields.get("CONTENT-TYPE", [""])[0] or None,
            forwarded_for=",".join(fields["X-FORWARDED-FOR"]) if "X-FORWARDED-FOR" in fields else None,
            request_id=self._request_id(fields, client),
            closes=request.should_close(),
        )

    def _request_id(self, fields: dict[str, list[str]], client: Any) -> str | None:
        given = fields.get("X-REQUEST-ID")
        if given is None:
            return None
        peer = client[0] if isinstance(client, tuple) else ""
        return request_id(given[0], peer, self._runtime.settings.trusted_proxies)


_ID_PLACEHOLDER = "-" * 32
