"""What may be done with targets, by whoever is let: on the command line, by the API, in the console. All is audited."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from receiver.core import ReceiverError, new_id
from receiver.net.egress import EgressClient, EgressError, EgressForbidden, EgressPolicy, parse_url
from receiver.webhooks import endpoints
from receiver.webhooks.endpoints import Endpoint, EventType, NewEndpoint, PayloadFormat
from receiver.webhooks.payloads import render_test

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network

    from receiver.db.engine import Ask, Database

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
NAME_PATTERN = f"^{_NAME.pattern}$"
LONGEST_WAIT_SECONDS = 7 * 86400


class InvalidEndpoint(ReceiverError):
    """A target that cannot be made; `faults` says of each field what is wrong."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in faults.items()))
        self.faults = faults


@dataclass(frozen=True, kw_only=True, slots=True)
class TestResult:
    """What came of a test: a status, or why there is none."""

    status: int | None
    error: str | None
    seconds: float

    @property
    def taken(self) -> bool:
        """Return whether the target took it."""
        return self.status is not None and 200 <= self.status < 300


def _faults(name: str, form: str, events: Sequence[str], seconds: int | None) -> dict[str, str]:
    faults: dict[str, str] = {}
    if not _NAME.fullmatch(name):
        faults["name"] = "letters, digits, and . _ - only, 64 at most"
    if form not in set(PayloadFormat):
        faults["format"] = f"not one of {', '.join(PayloadFormat)}"
    if form == PayloadFormat.RAW:
        given = {"events": bool(events), "not_delivered_after_seconds": seconds is not None}
        return faults | {field: "a raw target is sent every push, and nothing else" for field in given if given[field]}
    if not set(events) <= set(EventType):
        faults["events"] = f"not one of {', '.join(EventType)}"
    if seconds is not None and not 1 <= seconds <= LONGEST_WAIT_SECONDS:
        faults["not_delivered_after_seconds"] = f"not from 1 to {LONGEST_WAIT_SECONDS} seconds"
    if seconds is None and EventType.NOT_DELIVERED in events:
        faults["not_delivered_after_seconds"] = f"{EventType.NOT_DELIVERED} needs it: after how many seconds?"
    return faults


class Webhooks:
    """What may be done with webhook endpoints, whoever asks. Safe for many threads.

    Each method raises StoreUnavailable or StoreUnfit, beside what it names.
    """

    def __init__(
        self,
        database: Database,
        *,
        accounts: Collection[str],
        allow: Sequence[IPv4Network | IPv6Network | str],
        ask: Ask,
        audit: Callable[..., None],
        now: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._accounts = frozenset(accounts)
        self._allow = allow
        self._ask = ask
        self._audit = audit
        self._now = now
        self._wake = wake

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
    ) -> str | None:
        """Make a target; give the secret that its posts are signed with, this once. None: it is sent raw pushes.

        No `events`: every one. Raises InvalidTarget, NameTaken.
        """
        raw = form == PayloadFormat.RAW
        faults = _faults(name, form, events, not_delivered_after_seconds)
        if fault := self._fault_of_url(url):
            faults["url"] = fault
        if accounts is not None and not set(accounts) <= self._accounts:
            faults["accounts"] = "no such account is configured"
        if faults:
            raise InvalidEndpoint(faults)
        wanted = {EventType(event) for event in events} or set(EventType)
        if not_delivered_after_seconds is None:
            wanted.discard(EventType.NOT_DELIVERED)
        else:
            wanted.add(EventType.NOT_DELIVERED)
        new = NewEndpoint(
            name=name,
            url=url,
            format=PayloadFormat(form),
            events=() if raw else tuple(event for event in EventType if event in wanted),
            accounts=tuple(accounts) if accounts is not None else None,
            pii=pii or raw,
            not_delivered_after_seconds=not_delivered_after_seconds,
        )
        secret = self._database.write(partial(endpoints.create_target, new=new, now=self._now()))
        self._audit(
            actor,
            "webhook.create",
            name=name,
            host=parse_url(url).host,
            format=new.format.value,
            events=[event.value for event in new.events],
            accounts=list(new.accounts) if new.accounts is not None else None,
            pii=new.pii,
        )
        self._wake()
        return secret

    def _fault_of_url(self, url: str) -> str | None:
        try:
            place = parse_url(url)
            EgressPolicy(self._allow).addresses(place.host, place.port)
        except (ValueError, EgressForbidden, EgressError) as error:
            return str(error)
        return None

    def find(self, name: str, accounts: tuple[str, ...] | None = None) -> Endpoint:
        """Return a target of those that hear of these accounts alone. Raises NotFound."""
        return self._ask(partial(endpoints.get_target, name=name, accounts=accounts))

    def pause(self, actor: str, target: Endpoint) -> None:
        """Send it nothing; what it is to hear of is kept."""
        self._database.write(partial(endpoints.pause_target, target=target, because=f"by {actor}", now=self._now()))
        self._audit(actor, "webhook.pause", name=target.name)

    def resume(self, actor: str, target: Endpoint) -> None:
        """Send to it again, all that waits."""
        self._database.write(partial(endpoints.resume_target, target=target, now=self._now()))
        self._audit(actor, "webhook.resume", name=target.name)
        self._wake()

    def rotate(self, actor: str, target: Endpoint) -> str:
        """Make a new secret and return it, once; the old one signs too for a day. Raises NotFound for a raw one."""
        secret = self._database.write(partial(endpoints.rotate_secret, target=target, now=self._now()))
        self._audit(actor, "webhook.rotate", name=target.name)
        return secret

    def remove(self, actor: str, target: Endpoint) -> None:
        """Remove it, and all that waits for it."""
        self._database.write(partial(endpoints.remove_target, target=target))
        self._audit(actor, "webhook.remove", name=target.name)
        while self._database.write(partial(endpoints.remove_orphans, target=target)):
            pass

    def replay(self, actor: str, target: Endpoint, ids: Sequence[int] | None = None) -> int:
        """Send again what was given up, by id or all of it; give how many."""
        again = self._database.write(partial(endpoints.replay_dead, target=target, now=self._now(), ids=ids))
        self._audit(actor, "webhook.replay", name=target.name, deliveries=again)
        self._wake()
        return again

    def try_out(self, actor: str, target: Endpoint) -> TestResult:
        """Send it an event that says of itself that it is a test, now, paused or not."""
        self._audit(actor, "webhook.test", name=target.name)
        place = parse_url(target.url)
        way = EgressClient(place, EgressPolicy(self._allow), connections=1)
        begun = time.monotonic()
        request = render_test(target, place, test_id=new_id().hex, at=self._now())
        status, error = None, None
        try:
            status = way.send(request.method, request.line, request.headers, request.body).status
        except (EgressError, EgressForbidden) as caught:
            error = str(caught)
        finally:
            way.close()
        return TestResult(status=status, error=error, seconds=round(time.monotonic() - begun, 3))
