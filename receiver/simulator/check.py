"""Compares a simulator's ledger with the receiver's API: nothing missing, nothing extra."""

from __future__ import annotations

import http.client
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from receiver.core import Kind, Receipt, ReceiverError, fold, is_masked, read_refusal, shown_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from receiver.simulator.ledger import Ledger, PushKey
    from receiver.simulator.traffic import SimulatedMessage

_PAGE = 1000
_RECORDS = 1000
_NAMED_MAX = 20
_TIMEOUT_SECONDS = 60.0
_IN_DOUBT = frozenset({"outcome_unknown", "sending"})


class ApiUnavailable(ReceiverError):
    """The receiver's API is not available at present."""


class ReceiverApi:
    """A client of the receiver's query API, with one connection."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of one call. Raises ApiUnavailable for a 503 or no answer, ReceiverError for no 2xx."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, f"/api/v1{path}", data, self._headers)
            answer = self._connection.getresponse()
            status, text = answer.status, answer.read()
            content = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._connection.close()
            raise ApiUnavailable(f"the receiver's API does not answer ({type(error).__name__})") from None
        if status == 503:
            raise ApiUnavailable(f"the receiver's API answers 503: {content.get('detail', '')}")
        if not 200 <= status < 300:
            raise ReceiverError(f"the receiver's API answers {status}: {content.get('detail', '')}")
        return content

    def iter_all(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Yield every item of a list."""
        cursor: str | None = None
        while True:
            query = {"limit": str(_PAGE)} | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", f"/{name}?{urlencode(query)}")
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def record(self, messages: Sequence[SimulatedMessage]) -> None:
        """Record sends, as a sender does."""
        for begin in range(0, len(messages), _RECORDS):
            body = [
                {
                    "task_id": message.task_id,
                    "mobile": message.mobile,
                    "template_id": message.template_id,
                    "sent_at": message.sent_at.isoformat(),
                    "success_counts": "1",
                }
                for message in messages[begin : begin + _RECORDS]
            ]
            self.call("POST", "/messages", body)


@dataclass(slots=True)
class Comparison:
    """The numbers compared, and the differences."""

    counts: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether there is no difference."""
        return not (self.missing or self.extra or self.differing)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program, with the first twenty differences of each kind."""
        return {
            **self.counts,
            "missing": len(self.missing),
            "extra": len(self.extra),
            "differing": len(self.differing),
            "details": [*self.missing[:_NAMED_MAX], *self.extra[:_NAMED_MAX], *self.differing[:_NAMED_MAX]],
        }


def compare(ledger: Ledger, api: ReceiverApi) -> Comparison:
    """Return how a ledger differs from a receiver without other data.

    The key needs the scopes `read` and `pii`. Raises ReceiverError if it shows masked numbers.
    """
    found = Comparison()
    in_api = list(api.iter_all("messages"))
    if any(is_masked(message["mobile"]) for message in in_api):
        raise ReceiverError("the key shows masked numbers; the check needs the scope pii")
    _compare_events(ledger, api, found)
    _compare_messages(ledger, in_api, found)
    return found


def _compare_events(ledger: Ledger, api: ReceiverApi, found: Comparison) -> None:
    in_api: dict[PushKey, int] = {}
    for name, kind, said, at in (
        ("receipts", Kind.RECEIPT, "vendor_status", "reported_at"),
        ("replies", Kind.REPLY, "content", "replied_at"),
    ):
        for row in api.iter_all(name):
            moment = datetime.fromisoformat(row[at]).isoformat()
            key = (kind.value, row["task_id"], row["mobile"], row[said], moment)
            if key in in_api:
                found.extra.append(f"{_named(key)}: twice")
            in_api[key] = row["copies"]
        found.counts[name] = sum(1 for key in in_api if key[0] == kind)
    pushed = {_as_stored(key): (count, ledger.acked[key]) for key, count in ledger.pushed.items()}
    for key, (requests, acked) in pushed.items():
        copies = in_api.get(key, 0)
        if copies < acked:
            found.missing.append(f"{_named(key)}: {acked} acknowledged, {copies} stored")
        elif copies > requests:
            found.extra.append(f"{_named(key)}: {requests} pushed, {copies} stored")
    found.extra += [f"{_named(key)}: never pushed" for key in in_api.keys() - pushed.keys()]


def _as_stored(key: PushKey) -> PushKey:
    kind, task_id, mobile, said, at = key
    return (kind, task_id, mobile, shown_content(said), at)


def _named(key: PushKey) -> str:
    kind, task_id, _, _, at = key
    return f"{kind} of task {task_id} at {at}"


def _compare_messages(ledger: Ledger, in_api: Sequence[Mapping[str, Any]], found: Comparison) -> None:
    by_task = {message["task_id"]: message for message in in_api if message["task_id"] is not None}
    # A send whose answer did not reach the receiver has a row without a task id, in one of these states.
    in_doubt = Counter(message["mobile"] for message in in_api if message["status"] in _IN_DOUBT)
    receipts: dict[str, list[tuple[Receipt, bool]]] = defaultdict(list)
    for (kind, task_id, mobile, said, at), requests in ledger.pushed.items():
        if kind == Kind.RECEIPT:
            receipt = Receipt(
                mobile=mobile, task_id=task_id, vendor_status=said, reported_at=datetime.fromisoformat(at)
            )
            receipts[task_id].append((receipt, ledger.acked[kind, task_id, mobile, said, at] == requests))
    for task_id, (mobile, template_id) in ledger.sent.items():
        row = by_task.pop(task_id, None)
        if (row is None or not row["matched"]) and in_doubt[mobile]:
            in_doubt[mobile] -= 1
            found.counts["in_doubt"] += 1
            continue
        if row is None:
            found.missing.append(f"message of task {task_id}")
            continue
        if row["mobile"] != mobile or row["template_id"] != template_id or not row["matched"]:
            found.differing.append(f"message of task {task_id}: not recorded as it was sent")
        if all(sure for _, sure in receipts[task_id]):
            state = fold(receipt for receipt, _ in receipts[task_id])
            expected = {state.status.name.lower()} | ({"no_receipt"} if not receipts[task_id] else set())
            if row["status"] not in expected:
                found.differing.append(
                    f"message of task {task_id}: {row['status']}, pushed {state.status.name.lower()}"
                )
    found.extra += [f"message of task {task_id}: never sent" for task_id in by_task]
    found.counts["messages"] = len(in_api)
    _compare_refused(ledger, in_api, in_doubt, found)


def _compare_refused(
    ledger: Ledger, in_api: Sequence[Mapping[str, Any]], in_doubt: Counter[str], found: Comparison
) -> None:
    stored = Counter(
        (message["mobile"], message["error_message"]) for message in in_api if message["status"] == "refused"
    )
    for (mobile, words), count in ledger.refused.items():
        missing = count - stored.pop((mobile, words), 0)
        if missing > 0 and in_doubt[mobile] < missing:
            found.missing.append(f"{missing} refused sends: {words}")
        elif missing < 0:
            found.extra.append(f"{-missing} refused sends: {words}")
    found.extra += [
        f"{count} refused sends: {words}" for (_, words), count in stored.items() if read_refusal(words)[0] is None
    ]


def await_agreement(ledger: Ledger, api: ReceiverApi, pause: Callable[[], bool]) -> Comparison:
    """Compare until there is no difference, or `pause` returns False. Return the last comparison."""
    while True:
        try:
            found = compare(ledger, api)
            if found.ok or not pause():
                return found
        except ApiUnavailable:
            if not pause():
                raise
