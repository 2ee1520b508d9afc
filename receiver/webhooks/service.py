"""Changes of webhook endpoints, for command line, API and console; each is audited in its own transaction."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from receiver.core import Fault, InputFault, ReceiverError, new_id
from receiver.db.engine import RowRejected
from receiver.db.set_aside import ROW_FAULTS, SetAsideReason, note
from receiver.net.egress import open_client
from receiver.net.egress_policy import EgressError, EgressForbidden, parse_url
from receiver.webhooks import changes, endpoints, recovery
from receiver.webhooks.endpoints import Endpoint, EventType, NewEndpoint, PayloadFormat
from receiver.webhooks.payloads import render_test

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from receiver.audit import AuditTrail
    from receiver.db.engine import Ask, Database
    from receiver.net.egress_policy import EgressPolicy

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
NAME_PATTERN = f"^{_NAME.pattern}$"
LONGEST_WAIT_SECONDS = 7 * 86400


class EndpointFault(Fault):
    """What is wrong with a field of an endpoint."""

    NAME = "letters, digits, and . _ - only, 64 at most"
    NOT_A_CHOICE = "not one of {choices}"
    NOT_FOR_RAW = "a raw endpoint receives every push; leave this out"
    SECONDS = "not from 1 to {most} seconds"
    HEADERS = "at most {most}, each name once, in whatever case"
    HEADERS_MOVE = "a new scheme, host or port needs them given again, or none: their values are secret"
    NO_EVENT_LEFT = "no event is left: choose others, or pause or remove the webhook"
    HEADER_NAME = "a name is letters, digits and -, and none that every request has, such as Host or Content-Type"
    HEADER_VALUE = "a value is printable ASCII without blanks at its ends, 4000 characters at most"
    NOT_PAST = "not a time before now"
    NO_SPAN = "not a time after since"
    TOO_MANY = "more than {most} receipts, replies, pushes or timers: take a later beginning, or an earlier end"
    UNDER_WAY = "the events of this webhook are being sent again already: wait until that has ended"
    QUEUE_FULL = "{most} deliveries of this webhook, or more, are pending: wait until some are delivered"
    SECONDS_MISSING = "{event} needs it: after how many seconds?"


class InvalidEndpoint(ReceiverError):
    """The endpoint is invalid; `faults` maps each wrong field to its reason."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in faults.items()))
        self.faults = faults


class ReplayRefused(ReceiverError):
    """Not now: the same is under way, or too much is pending. Its text is an EndpointFault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestResult:
    """The result of a test: a status, or the error."""

    status: int | None
    error: str | None
    seconds: float

    @property
    def taken(self) -> bool:
        """Return whether the endpoint accepted it."""
        return self.status is not None and 200 <= self.status < 300


# Those of a connection, of its framing and of its body are the client's, the rest are ours.
_OWN_HEADERS = frozenset(
    "connection date expect host keep-alive te trailer transfer-encoding upgrade user-agent".split()  # noqa: SIM905
)
_OWN_PREFIXES = ("content-", "proxy-", "webhook-", "x-push-id", "x-receiver-")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,3998}[\x21-\x7e])?", re.ASCII)
_HEADERS_MAX = 10


def read_headers(lines: Iterable[str]) -> dict[str, str]:
    """Return headers that are written as `Name: value`. Raises InvalidEndpoint if one is given twice."""
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = dict(pairs)
    if len(headers) < len(pairs):
        raise InvalidEndpoint({"headers": EndpointFault.HEADERS.format(most=_HEADERS_MAX)})
    return headers


def _fault_of_headers(headers: Mapping[str, str]) -> str | None:
    names = [name.lower() for name in headers]
    if len(names) > _HEADERS_MAX or len(set(names)) < len(names):
        return EndpointFault.HEADERS.format(most=_HEADERS_MAX)
    for name in names:
        if name in _OWN_HEADERS or name.startswith(_OWN_PREFIXES) or not _HEADER_NAME.fullmatch(name):
            return EndpointFault.HEADER_NAME
    if not all(map(_HEADER_VALUE.fullmatch, headers.values())):
        return EndpointFault.HEADER_VALUE
    return None


def _faults(name: str, form: str, events: Sequence[str], seconds: int | None) -> dict[str, str]:
    faults: dict[str, str] = {}
    if not _NAME.fullmatch(name):
        faults["name"] = EndpointFault.NAME
    if form not in set(PayloadFormat):
        faults["format"] = EndpointFault.NOT_A_CHOICE.format(choices=", ".join(PayloadFormat))
    if form == PayloadFormat.RAW:
        given = {"events": bool(events), "not_delivered_after_seconds": seconds is not None}
        return faults | {field: EndpointFault.NOT_FOR_RAW for field in given if given[field]}
    if not set(events) <= set(EventType):
        faults["events"] = EndpointFault.NOT_A_CHOICE.format(choices=", ".join(EventType))
    if seconds is not None and not 1 <= seconds <= LONGEST_WAIT_SECONDS:
        faults["not_delivered_after_seconds"] = EndpointFault.SECONDS.format(most=LONGEST_WAIT_SECONDS)
    if seconds is None and EventType.NOT_DELIVERED in events:
        faults["not_delivered_after_seconds"] = EndpointFault.SECONDS_MISSING.format(event=EventType.NOT_DELIVERED)
    return faults


def _place_of(url: str) -> tuple[str, str, int] | None:
    try:
        place = parse_url(url)
    except ValueError:
        return None
    return place.scheme, place.host, place.port


class EndpointChange(TypedDict, total=False):
    """What is to change of an endpoint; what is left out stays."""

    url: str
    events: Sequence[str]  # empty: all of them
    accounts: Sequence[str] | None  # None: every account
    pii: bool
    not_delivered_after_seconds: int | None
    headers: Mapping[str, str]  # all of them


def _faults_of_change(target: Endpoint, change: EndpointChange, events: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with a change, whatever the endpoint would be then."""
    faults: dict[str, str] = {}
    if not events and "events" not in change and target.format is PayloadFormat.WEBHOOKS:
        faults["events"] = EndpointFault.NO_EVENT_LEFT  # an empty list would mean all of them
    if target.headers and "headers" not in change and _place_of(change.get("url", target.url)) != _place_of(target.url):
        faults["headers"] = EndpointFault.HEADERS_MOVE  # the new server would get to know them
    return faults


def _audited(settings: NewEndpoint) -> dict[str, Any]:
    """Return what the audit log has of an endpoint: not its URL, which may contain a password.

    An entry leaves out what is None, so that no value that a change can bring is None.
    """
    return {
        "host": parse_url(settings.url).host,
        "format": settings.format.value,
        "events": [event.value for event in settings.events],
        "accounts": list(settings.accounts) if settings.accounts is not None else "all",
        "pii": settings.pii,
        "not_delivered_after_seconds": settings.not_delivered_after_seconds or 0,
        "headers": settings.header_names,
    }


def replay_window(since: datetime, until: datetime | None, now: datetime) -> recovery.Window:
    """Return the time whose events are sent again. Raises InvalidEndpoint."""
    if since > now:
        raise InvalidEndpoint({"since": EndpointFault.NOT_PAST})
    if until is not None and until <= since:
        raise InvalidEndpoint({"until": EndpointFault.NO_SPAN})
    return recovery.Window(since=since, until=until or now)


class Webhooks:
    """Operations on webhook endpoints. Thread-safe.

    Each method may also raise DatabaseUnavailable or DatabaseMisconfigured.
    """

    def __init__(
        self,
        database: Database,
        *,
        accounts: Collection[str],
        no_receipt_after: timedelta,
        policy: EgressPolicy,
        ask: Ask,
        trail: AuditTrail,
        wake: Callable[[], None],
        give_way: Callable[[float], None],
    ) -> None:
        self._database = database
        self._accounts = frozenset(accounts)
        self._no_receipt_after = no_receipt_after
        self._policy = policy
        self._ask = ask
        self._trail = trail
        self._wake = wake
        self._give_way = give_way
        self._recovered: set[int] = set()  # ids of endpoints; other processes are kept off by the database
        self._recovered_lock = Lock()

    def add(
        self,
        actor: str,
        *,
        name: str,
        url: str,
        form: str,
        events: Sequence[str] = (),
        accounts: Sequence[str] | None = None,
        pii: bool = False,
        not_delivered_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str | None:
        """Create an endpoint and return its signing secret, only this once. None: a raw endpoint has none.

        No `events`: all of them. Raises InvalidEndpoint, NameTaken.
        """
        new = self._checked(
            name=name,
            url=url,
            form=form,
            events=events,
            accounts=accounts,
            pii=pii,
            not_delivered_after_seconds=not_delivered_after_seconds,
            headers=headers or {},
        )
        work = partial(changes.create_endpoint, new=new, now=self._trail.now())
        secret = self._trail.audited(work, actor, "webhook.create", name=name, **_audited(new))
        self._wake()
        return secret

    def update(self, actor: str, target: Endpoint, change: EndpointChange) -> None:
        """Change an endpoint, which keeps its secret; its pending deliveries go to the new URL, at once.

        Raises InvalidEndpoint, NotFound.
        """
        events, seconds = change.get("events"), target.not_delivered_after_seconds
        if events and EventType.NOT_DELIVERED not in events:
            seconds = None  # no longer subscribed
        seconds = change.get("not_delivered_after_seconds", seconds)
        if events is None:
            events = [event for event in target.events if seconds is not None or event != EventType.NOT_DELIVERED]
        new = self._checked(
            name=target.name,
            url=change.get("url", target.url),
            form=target.format,
            events=events,
            accounts=change.get("accounts", target.accounts),
            pii=change.get("pii", target.pii),
            not_delivered_after_seconds=seconds,
            headers=change.get("headers", target.headers),
            old=target,
            known=_faults_of_change(target, change, events),
        )
        work = partial(changes.update_endpoint, new=new, now=self._trail.now())
        changed = {name: value for name, value in _audited(new).items() if value != _audited(target)[name]}
        changed |= {"url_changed": new.url != target.url, "headers_changed": new.headers != target.headers}
        self._change(actor, "webhook.update", target, work, **changed)
        self._wake()

    def _checked(
        self,
        *,
        name: str,
        url: str,
        form: str,
        events: Sequence[str],
        accounts: Sequence[str] | None,
        pii: bool,
        not_delivered_after_seconds: int | None,
        headers: Mapping[str, str],
        old: Endpoint | None = None,
        known: Mapping[str, str] | None = None,
    ) -> NewEndpoint:
        """Return the settings of an endpoint; the URL and accounts of `old` are not judged anew.

        Raises InvalidEndpoint, with the `known` faults too.
        """
        raw = form == PayloadFormat.RAW
        faults = {**(known or {}), **_faults(name, form, events, not_delivered_after_seconds)}
        if (old is None or url != old.url) and (fault := self._fault_of_url(url)):
            faults["url"] = fault
        allowed = self._accounts.union((old.accounts if old else None) or ())
        if accounts is not None and not set(accounts) <= allowed:
            faults["accounts"] = InputFault.UNKNOWN_ACCOUNT
        if fault := _fault_of_headers(headers):
            faults["headers"] = fault
        if faults:
            raise InvalidEndpoint(faults)
        chosen = {EventType(event) for event in events} or set(EventType)
        if not_delivered_after_seconds is None:
            chosen.discard(EventType.NOT_DELIVERED)
        else:
            chosen.add(EventType.NOT_DELIVERED)
        return NewEndpoint(
            name=name,
            url=url,
            format=PayloadFormat(form),
            events=() if raw else tuple(event for event in EventType if event in chosen),
            accounts=tuple(accounts) if accounts is not None else None,
            pii=pii or raw,
            not_delivered_after_seconds=not_delivered_after_seconds,
            headers=headers,
        )

    def _fault_of_url(self, url: str) -> str | None:
        try:
            place = parse_url(url)
            self._policy.check(place.host, place.port)
        except (ValueError, EgressForbidden, EgressError) as error:
            fault: str = error.args[0]
            return fault
        return None

    def find(self, name: str, accounts: tuple[str, ...] | None = None) -> Endpoint:
        """Return an endpoint by name, limited to these accounts. Raises NotFound."""
        return self._ask(partial(endpoints.get_endpoint, name=name, accounts=accounts))

    def pause(self, actor: str, target: Endpoint) -> None:
        """Pause an endpoint; its deliveries stay pending."""
        change = partial(changes.pause_endpoint, because=f"by {actor}", now=self._trail.now())
        self._change(actor, "webhook.pause", target, change)

    def resume(self, actor: str, target: Endpoint) -> None:
        """Resume an endpoint and send its pending deliveries."""
        self._change(actor, "webhook.resume", target, partial(changes.resume_endpoint, now=self._trail.now()))
        self._wake()

    def rotate(self, actor: str, target: Endpoint) -> str:
        """Create a new secret and return it, once; the old one also signs for a day. Raises NotFound if raw."""
        return self._change(actor, "webhook.rotate", target, partial(changes.rotate_secret, now=self._trail.now()))

    def remove(self, actor: str, target: Endpoint) -> None:
        """Remove an endpoint and its deliveries."""
        self._change(actor, "webhook.remove", target, changes.remove_endpoint)
        while self._database.write(partial(changes.remove_orphans, target=target)):
            pass

    def replay(self, actor: str, target: Endpoint, ids: Sequence[int] | None = None) -> int:
        """Queue deliveries again, by id, or all that are dead, and return their number."""
        change = partial(changes.replay_by_id, now=self._trail.now(), ids=ids)
        again = self._change(actor, "webhook.replay", target, change, result_as="deliveries")
        self._wake()
        return again

    def replay_since(
        self, actor: str, target: Endpoint, since: datetime, *, until: datetime | None = None, everything: bool = False
    ) -> int:
        """Send again what was queued from then on, before `until`, and has failed; with `everything` all events.

        These are made anew from what is stored, in short transactions. Return the number, without those of timers.
        Raises InvalidEndpoint, ReplayRefused, NotFound.
        """
        now = self._trail.now()
        window = replay_window(since, until, now)
        detail: dict[str, Any] = {
            "since": since.isoformat(),
            "until": window.until.isoformat(),
            "everything": everything,
        }
        change = partial(changes.replay_failed, target=target, now=now, since=since, until=window.until)
        if everything:
            return self._recover(actor, target, window, change, detail)
        again = self._trail.audited(change, actor, "webhook.replay", result_as="deliveries", name=target.name, **detail)
        self._wake()
        return again

    def _recover(
        self,
        actor: str,
        target: Endpoint,
        window: recovery.Window,
        replay_failed: Callable[[Any], int],
        detail: Mapping[str, Any],
    ) -> int:
        after = self._no_receipt_after
        with self._recovering(target):
            steps = self._ask(partial(recovery.list_steps, target=target, window=window, no_receipt_after=after))
            if sum(len(step.ids) for step in steps) > recovery.ROWS_MAX:
                raise InvalidEndpoint({"since": EndpointFault.TOO_MANY.format(most=recovery.ROWS_MAX)})
            if self._ask(partial(endpoints.find_health, target=target)).pending >= endpoints.PENDING_MAX:
                raise ReplayRefused(EndpointFault.QUEUE_FULL.format(most=endpoints.PENDING_MAX))
            self._trail.audit(actor, "webhook.replay_begin", name=target.name, **detail)
            made = 0
            try:
                made = self._database.write(replay_failed)
                queued = self._ask(partial(recovery.list_queued, target=target))
                for step in steps:
                    begun = time.monotonic()
                    new = self._queue_step(target, step, queued)
                    queued |= new
                    made += len(new)
                    self._wake()
                    self._give_way(time.monotonic() - begun)
            finally:
                self._trail.audit(actor, "webhook.replay", name=target.name, deliveries=made, **detail)
        return made

    def _queue_step(self, target: Endpoint, step: recovery.Step, queued: set[Any]) -> set[Any]:
        """Queue the events of some rows, without those of rows that cannot be read; return the keys of the new ones."""
        after = self._no_receipt_after
        work = partial(recovery.queue_step, target=target, step=step, queued=queued, no_receipt_after=after)
        try:
            return self._database.write(work)
        except (RowRejected, *ROW_FAULTS) as error:
            if len(step.ids) > 1:
                return set().union(*(self._queue_step(target, one, queued) for one in step.singly()))
            note(step.table, step.ids[0], error, SetAsideReason.NO_DELIVERY)
            return set()

    @contextmanager
    def _recovering(self, target: Endpoint) -> Iterator[None]:
        """Let one recovery of an endpoint run at a time. Raises ReplayRefused."""
        with self._recovered_lock:
            if target.id in self._recovered:
                raise ReplayRefused(EndpointFault.UNDER_WAY)
            self._recovered.add(target.id)
        try:
            with self._database.maintaining() as connection:
                if not recovery.take_turn(connection, target):
                    raise ReplayRefused(EndpointFault.UNDER_WAY)
                connection.rollback()
                yield
        finally:
            self._recovered.discard(target.id)

    def _change(
        self,
        actor: str,
        action: str,
        target: Endpoint,
        change: Callable[..., T],
        *,
        result_as: str | None = None,
        **detail: Any,
    ) -> T:
        work = partial(change, target=target)
        return self._trail.audited(work, actor, action, result_as=result_as, name=target.name, **detail)

    def try_out(self, actor: str, target: Endpoint) -> TestResult:
        """Send a test event at once, even to a paused endpoint, and return the result."""
        self._trail.audit(actor, "webhook.test", name=target.name)
        place = parse_url(target.url)
        client = open_client(place, self._policy, connections=1)
        begun = time.monotonic()
        request = render_test(target, place, test_id=new_id().hex, at=self._trail.now())
        status, error = None, None
        try:
            status = request.send(client).status
        except (EgressError, EgressForbidden) as caught:
            error = caught.args[0]
        finally:
            client.close()
        return TestResult(status=status, error=error, seconds=round(time.monotonic() - begun, 3))
