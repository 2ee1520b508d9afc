"""The short way of a push: from the bytes of a whole request to the committer, and back as the bytes of its answer.

Takes what it fully understands, which is every push that the platform is known to send, refuses a wrong secret while
that costs next to nothing, and leaves the rest to the Flask route: that one is the reference, and a suite holds the two
doors together. What a request's head says is worked out once, by gunicorn's own parser, and remembered for the pushes
that begin with the same bytes.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import flask.testing  # noqa: F401  (Flask would load it for the first answer, when there may be no file left to open)
from gunicorn import SERVER, util
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from receiver.core import Kind, Overloaded, ReceiverError, new_id
from receiver.intake import PUSH_MAX_BYTES, Acknowledged, PushRequest, PushSecret, Refused, read_push_path, within
from receiver.server.answers import kept_seconds
from receiver.web import RUNTIME
from receiver.web.access_log import PushLog, request_id
from receiver.web.push import acknowledgement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flask import Flask, Response

    from receiver.runtime import Runtime

_TARGET = re.compile(r"/((?i:push)/[^?#]*)(?:\?([^#]*))?")
# Behind the length that a request says. No line of a head ends in them, so that they are nothing but what is too much.
_LEFT_OVER = re.compile(rb"[^\r\n]{1,4096}?(?=POST /push/)")
_HEADS_MAX = 4096
_WRONG_HEADS_MAX = 256
_HEAD_MAX_BYTES = 4096  # a longer one is worked out each time
_ANSWERS_MAX = 256
_BODILESS_STATUSES = frozenset({204, 205})
# These change what the body is, or what the peer awaits.
_NOT_FOR_THE_LANE = frozenset({"TRANSFER-ENCODING", "EXPECT", "UPGRADE", "TRAILER"})
_NOT_TAKEN_UP = ["h2c"]  # JDK's own client offers it with every request over plain HTTP, and goes on without it


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a push says."""

    secret: PushSecret | None  # None: what was given is nobody's
    method: str
    endpoint: Kind | None
    strayed: bool
    query: bytes
    body_bytes: int
    content_length: str  # empty: there is none, and no body
    content_type: str | None
    forwarded_for: str | None
    request_id: str | None  # that a trusted proxy gave it
    closes: bool


class FastPath:
    """Answers pushes without a thread for each. For one thread, but for what the committer calls back."""

    def __init__(self, app: Flask, cfg: Any) -> None:
        self._app = app
        self._cfg = cfg
        self._runtime: Runtime = app.extensions[RUNTIME]
        self._heads: OrderedDict[bytes, Head] = OrderedDict()
        self._wrong_heads: OrderedDict[bytes, Head] = OrderedDict()  # apart: guesses drive out no sender's
        self._answers: OrderedDict[tuple[Any, ...], tuple[bytes, bytes, bytes]] = OrderedDict()
        self._date = (0, b"")
        self._kept = b"keep-alive\r\nKeep-Alive: timeout=%d" % kept_seconds(cfg)
        self._log = PushLog(self._runtime.settings)

    @cached_property
    def open(self) -> bool:
        """Return whether the settings leave anything for it."""
        settings = self._runtime.settings
        return settings.push_lane and settings.ack_status not in _BODILESS_STATUSES

    def head(self, raw: bytes, client: Any) -> Head | None:
        """Work out the head of a request, blank line included. None: the request is for the reference."""
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

    def left_over(self, raw: bytes, before: Head | None, client: Any) -> int:
        """Return how many bytes in front of a head the push before it has left over. 0: none that may be skipped.

        A sender that counts characters and not bytes sends them. They are skipped where both pushes have a right secret
        and come from the sender himself: a proxy shares its connection among many, and knows another end of a request.
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

    def take(
        self, head: Head, body: bytes, client: Any, settle: Callable[[Acknowledged | ReceiverError], None]
    ) -> bool:
        """Hand a push to the committer, or refuse it. False: the request is for the reference."""
        gate = self._runtime.admission
        peer = client[0] if isinstance(client, tuple) else ""
        if head.secret is None:
            settle(gate.refuse_secret(peer, head.forwarded_for, request_id=head.request_id or new_id().hex))
            return True
        address = gate.allowed_address(peer, head.forwarded_for)
        if address is None:
            return False
        request = PushRequest(
            secret="",
            endpoint=head.endpoint,
            strayed=head.strayed,
            method="POST",
            query=head.query,
            content_length=head.content_length,
            chunked=False,
            content_type=head.content_type,
            peer=peer,
            forwarded_for=head.forwarded_for,
            read=_NOTHING.read,
        )
        try:
            self._runtime.batch_writer.take(gate.take(request, body, secret=head.secret, address=address), settle)
        except Overloaded:
            return False
        return True

    def answer(self, result: Acknowledged | ReceiverError, head: Head, *, closes: bool) -> bytes:
        """Return the bytes of the answer, those that Flask and gunicorn would send."""
        if isinstance(result, Acknowledged):
            key: tuple[Any, ...] = (result.outcome, result.push.error)
            given_id = str(result.push.id)
        else:
            key = (type(result), str(result))
            given_id = getattr(result, "request_id", None) or head.request_id or new_id().hex
        top, until_id, rest = self._answers.get(key) or self._render(key, result)
        connection = b"close" if closes else self._kept
        return b"%bDate: %b\r\nConnection: %b\r\n%b%b%b" % (
            top, self._now(), connection, until_id, given_id.encode(), rest
        )  # fmt: skip

    def note(self, answered: Sequence[tuple[Acknowledged | ReceiverError, Head, float]]) -> None:
        """Log pushes that were answered: what became of each, its head, and the seconds it took."""
        taken = []
        for result, head, seconds in answered:
            if isinstance(result, Refused):
                bytes_in = head.body_bytes if head.content_length else None
                self._log.add_refused(result, method=head.method, bytes_in=bytes_in, seconds=seconds)
            else:
                taken.append((result, head.request_id, seconds))
        self._log.add(taken)

    def _render(self, key: tuple[Any, ...], result: Acknowledged | ReceiverError) -> tuple[bytes, bytes, bytes]:
        """Let Flask make an answer, for all that are like it: what stands before the date, and around the id."""
        with self._app.test_request_context("/push/-", method="POST"):
            made = (
                acknowledgement(self._runtime, result)
                if isinstance(result, Acknowledged)
                else self._app.handle_user_exception(result)
            )
            response: Response = self._app.process_response(self._app.make_response(made))
        if not isinstance(result, Acknowledged):
            response.headers["X-Request-Id"] = _ID_STANDS_HERE
        body = response.get_data()
        top = f"HTTP/1.1 {response.status}\r\nServer: {SERVER}\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        text = fields.encode("latin-1") + b"\r\n" + body
        until_id, _, rest = text.partition(
            (str(result.push.id) if isinstance(result, Acknowledged) else _ID_STANDS_HERE).encode()
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
        except Exception:  # noqa: BLE001  (whatever it is, the reference says it in its own words)
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
        if [offered.lower() for offered in fields.get("UPGRADE", ())] == _NOT_TAKEN_UP:
            del fields["UPGRADE"]
        if _NOT_FOR_THE_LANE & fields.keys() or len(lengths) > 1:
            return None
        written_length = lengths[0] if lengths else ""  # without one there is no body
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


_ID_STANDS_HERE = "-" * 32
_NOTHING = BytesIO()
