"""What each serving process does for targets: make deliveries of what was left, and send those that are due.

One thread looks, once a second or when a push was kept; each target has threads of its own, a few, so that one that
hangs holds up itself alone. No transaction is open while a target is waited for. While pushes come in, all of it rests
between its pieces for longer than each took: deliveries are made slower than pushes may come, and catch up.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from receiver.core import DatabaseUnavailable, ReceiverError
from receiver.db.engine import Database, StoreRejected
from receiver.db.set_aside import ROW_FAULTS, note_left
from receiver.net.egress import (
    EXCHANGE_SECONDS,
    EgressClient,
    EgressError,
    EgressForbidden,
    EgressPolicy,
    EgressResponse,
    parse_url,
)
from receiver.observability import get_logger, metrics
from receiver.webhooks import deliveries, endpoints
from receiver.webhooks.deliveries import BREAKER_FAILURES, LEASE, DeliveryClaim, Failure, QueuedDelivery, Settlement
from receiver.webhooks.fan_out import LEFT_FOR, fan_out, fan_out_one, pop_timer, pop_timers, retry_left
from receiver.webhooks.payloads import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from receiver.config import Network
    from receiver.db.availability import CircuitBreaker
    from receiver.messages.queries import Clock
    from receiver.webhooks.endpoints import Endpoint

_log = get_logger(__name__)

LOOK_SECONDS = 1.0
_LOOK_WITHOUT_TARGETS_SECONDS = 5.0
_MADE_AT_ONCE = 500
_MADE_AT_ONCE_BESIDE_PUSHES = 50  # a longer piece would be felt by those who wait for an acknowledgement
_WAITING_MAX = 20  # changes that cannot be made into deliveries, of those that are looked at one by one
SENT_AT_ONCE = 20  # of one claim: what a process that is killed may have sent unnoted
THREADS_EACH = 4
# No exchange begins so late that another may have the delivery before it ends; the name may take long to resolve.
_CLAIM_SECONDS = LEASE.total_seconds() - EXCHANGE_SECONDS - 20
# Of the time that a piece took, while pushes come in. Making deliveries is all computing; sending is mostly waiting. A
# burst of pushes goes first; what lasts longer is kept up with, at a higher price.
_REST_OF_MAKING, _REST_OF_MAKING_LATE, _REST_OF_SENDING, _REST_MAX_SECONDS = 40.0, 8.0, 2.0, 0.5
_LATE_SECONDS = 30.0
_GRACE_SECONDS = 2.0  # for what is under way when the process stops
_FIRST_WAIT_SECONDS, _MOST_WAIT_SECONDS, _WAIT_GROWS = 5.0, 6 * 3600.0, 4
_RETRY_AFTER_MAX_SECONDS = 3600.0
_GONE = 410
_MAY_SAY_WHEN = frozenset({429, 503})


class WebhookWorker:
    """Forwards, from its start to its stop. One for one process; all of them share the work."""

    def __init__(
        self,
        database: Database,
        *,
        link: CircuitBreaker,
        allow: Iterable[Network | str],
        clock: Callable[[], Clock],
        busy: Callable[[], bool],
    ) -> None:
        self._database = database
        self._link = link
        self._guard = EgressPolicy(allow)
        self._clock = clock
        self._busy = busy  # whether pushes come in
        self._lanes: dict[int, _Lane] = {}
        self._caught_up_at = time.monotonic()  # when nothing was left to make
        self._retried_at = float("-inf")  # at once: another version may have left something
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; in the process that is to do it, after any fork."""
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Look soon: something was kept. Costs next to nothing."""
        if self._lanes:
            self._nudged.set()

    def look(self) -> None:
        """Look at once: somebody has changed a target."""
        self._nudged.set()

    def stop(self) -> None:
        """End: what is under way has a moment, the rest stays for others."""
        self._stopping.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(_GRACE_SECONDS)
        lanes = list(self._lanes.values())
        deadline = time.monotonic() + _GRACE_SECONDS
        for lane in lanes:
            lane.stop(deadline)

    def _run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                more = self._link.up and self._look()
            except Exception as error:  # noqa: BLE001  (the edge of the thread: it has to go on)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                _log.warning("forwarding waits", reason=reason)
                self._stopping.wait(LOOK_SECONDS)
            if not more:
                known_none = self._link.up and not self._lanes
                self._nudged.wait(_LOOK_WITHOUT_TARGETS_SECONDS if known_none else LOOK_SECONDS)
            self._nudged.clear()

    def _look(self) -> bool:
        """Make what is to be made, for a while; say whether there is more. What was changed of targets is seen then."""
        until = time.monotonic() + LOOK_SECONDS
        with self._database.reading() as connection:
            found = endpoints.list_targets(connection)
        self._keep_lanes(found)
        if time.monotonic() - self._retried_at > LEFT_FOR.total_seconds():
            self._retried_at = time.monotonic()
            self._database.write(retry_left)
        clock = self._clock()
        after = clock.no_receipt_after
        some = partial(fan_out, no_receipt_after=after), partial(fan_out_one, no_receipt_after=after)
        more = True
        while more and time.monotonic() < until:
            more = self._make(*some)
        if not more:
            self._caught_up_at = time.monotonic()
        if found:
            more |= self._make(partial(pop_timers, clock=clock), partial(pop_timer, clock=clock))
            self._wake()
        return more

    def _make(self, work: Callable[..., int], one: Callable[[Any], bool]) -> bool:
        """Make some deliveries, or `one` where a row ends that; say whether there may be more to make."""
        begun = time.monotonic()
        limit = _MADE_AT_ONCE_BESIDE_PUSHES if self._busy() else _MADE_AT_ONCE
        try:
            made = self._database.write(partial(work, limit=limit))
        except (StoreRejected, *ROW_FAULTS):
            made = limit
            self._make_apart(one, limit)
        if made:
            self._wake()
        now = time.monotonic()
        late = now - self._caught_up_at > _LATE_SECONDS
        self._rest((_REST_OF_MAKING_LATE if late else _REST_OF_MAKING) * (now - begun))
        return made == limit and not self._stopping.is_set()

    def _make_apart(self, one: Callable[[Any], bool], limit: int) -> None:
        """Make deliveries one by one, until what ended the making of many is past. Raises where most of them end it."""
        waiting = 0
        for _ in range(limit):
            waiting += self._database.write(one)
            if waiting > _WAITING_MAX:
                raise ReceiverError("one change after the other cannot be made into deliveries: see the log")
            if self._stopping.is_set():
                return

    def _keep_lanes(self, found: list[Endpoint]) -> None:
        wanted = {target.id: target for target in found}
        for target_id in set(self._lanes) - set(wanted):
            self._lanes.pop(target_id).stop(time.monotonic())
        for target in found:
            if target.id not in self._lanes:
                self._lanes[target.id] = _Lane(
                    target, self._database, guard=self._guard, clock=self._clock, rest=self._rest
                )
            self._lanes[target.id].paused = target.paused_at is not None

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    def _rest(self, seconds: float) -> None:
        if self._busy():
            self._stopping.wait(min(_REST_MAX_SECONDS, seconds))


class _Lane:
    """Sends to one target, from as many threads as there is work for, and never more than a few."""

    def __init__(
        self,
        target: Endpoint,
        database: Database,
        *,
        guard: EgressPolicy,
        clock: Callable[[], Clock],
        rest: Callable[[float], None],
    ) -> None:
        self._id = target.id
        self._name = target.name
        self._place = parse_url(target.url)
        self._exit = EgressClient(self._place, guard, connections=THREADS_EACH)
        self._database = database
        self._clock = clock
        self._rest = rest
        self.paused = False
        self._woken = False  # since a thread began to look
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """See to it that somebody looks for what is due."""
        with self._lock:
            self._woken = True
            if not self._threads and not self.paused and not self._stopping.is_set():
                self._add_thread()

    def stop(self, deadline: float) -> None:
        """End by then, a reading of time.monotonic(), or by breaking off what is under way."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._exit.abort()
        for thread in threads:
            thread.join(_GRACE_SECONDS)
        self._exit.close()

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"forward {self._name}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        going_on = True
        while going_on:
            with self._lock:
                self._woken = False
            try:
                while not self._stopping.is_set() and not self.paused and self._send_some():
                    pass
            except Exception as error:  # noqa: BLE001  (the edge of the thread: the next look goes on)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                _log.warning("forwarding to a target waits", target=self._name, reason=reason)
                self._stopping.wait(LOOK_SECONDS)
            with self._lock:
                going_on = self._woken and not self.paused and not self._stopping.is_set()
                if not going_on:
                    self._threads.discard(threading.current_thread())

    def _send_some(self) -> bool:
        """Send what is due; say whether there may be more at once."""
        begun = time.monotonic()
        claim = self._database.write(
            partial(deliveries.claim, target_id=self._id, clock=self._clock(), limit=SENT_AT_ONCE)
        )
        if claim is None:
            return False
        full = len(claim.deliveries) == SENT_AT_ONCE
        with self._lock:
            if full and len(self._threads) < THREADS_EACH and not self._stopping.is_set():
                self._add_thread()
        became = self._send(claim, until=begun + _CLAIM_SECONDS)
        self._settle(became, until=begun + LEASE.total_seconds())
        return not became.failures_in_row and became.rest is None and became.pause_because is None

    def _send(self, claim: DeliveryClaim, *, until: float) -> Settlement:
        became = Settlement()
        for delivery in claim.deliveries:
            begun = time.monotonic()
            if self._stopping.is_set() or self.paused or begun > until or not self._send_one(claim, delivery, became):
                break
            self._rest(_REST_OF_SENDING * (time.monotonic() - begun))
        noted = {delivery.id for delivery in (*became.done, *(failure.delivery for failure in became.failed))}
        became.released = [delivery for delivery in claim.deliveries if delivery.id not in noted]
        return became

    def _send_one(self, claim: DeliveryClaim, delivery: QueuedDelivery, became: Settlement) -> bool:
        """Send a delivery and note what became of it; say whether the next may be sent."""
        now = datetime.now(UTC)
        try:
            request = render(claim, delivery, self._place, at=now)
        except ROW_FAULTS as error:  # the others do not wait for it; it is tried again, and a dead letter in the end
            note_left(delivery.message_id, delivery.push_id, error)
            self._note_failure(became, delivery, f"cannot be written ({type(error).__name__})", "unreadable", own=False)
            return True
        if request is None:
            became.done.append(delivery)
            metrics.FORWARD_ATTEMPTS.labels(self._name, "forgotten").inc()
            return True
        try:
            answer = self._exit.send(request.method, request.line, request.headers, request.body)
        except ROW_FAULTS as error:  # such as a header that no request may have
            self._note_failure(became, delivery, f"cannot be sent ({type(error).__name__})", "unsendable", own=False)
            return True
        except (EgressError, EgressForbidden) as error:
            if self._stopping.is_set():
                return False  # broken off by ourselves
            outcome = "forbidden" if isinstance(error, EgressForbidden) else "unreachable"
            self._note_failure(became, delivery, str(error), outcome, own=True)
            return False
        if 200 <= answer.status < 300:
            became.done.append(delivery)
            became.delivered += 1
            became.failures_in_row = 0
            metrics.FORWARD_ATTEMPTS.labels(self._name, "delivered").inc()
            return True
        words = f"answered with HTTP status {answer.status}"
        if answer.status == _GONE:
            became.pause_because = words
            metrics.FORWARD_ATTEMPTS.labels(self._name, "gone").inc()
            return False
        if 300 <= answer.status < 400:
            words += ", a redirect, which is not followed: name the URL that it leads to"
        failed = answer.status >= 500
        self._note_failure(became, delivery, words, "failed" if failed else "refused", own=failed)
        if answer.status in _MAY_SAY_WHEN and (seconds := retry_after_seconds(answer, now)) is not None:
            became.rest = timedelta(seconds=seconds)
            return False
        return became.failures_in_row < BREAKER_FAILURES

    def _note_failure(
        self, became: Settlement, delivery: QueuedDelivery, words: str, outcome: str, *, own: bool
    ) -> None:
        wait = timedelta(seconds=wait_seconds(delivery.attempts))
        became.failed.append(Failure(delivery=delivery, error=words, wait=wait))
        became.failures_in_row += own
        metrics.FORWARD_ATTEMPTS.labels(self._name, outcome).inc()

    def _settle(self, became: Settlement, *, until: float) -> None:
        """Note what became of a claim, also where the database is away for a moment; else it is sent again."""
        while True:
            try:
                self._database.write(partial(deliveries.settle, target_id=self._id, became=became))
            except DatabaseUnavailable:
                if time.monotonic() > until or self._stopping.wait(LOOK_SECONDS):
                    raise
            else:
                return


def wait_seconds(attempts: int) -> float:
    """Return how long a delivery waits after so many failures before this one: anything up to a bound that grows."""
    bound = min(_MOST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * _WAIT_GROWS ** min(attempts, 20))
    return random.uniform(1.0, bound)  # noqa: S311  (so that what failed together does not come back together)


def retry_after_seconds(answer: EgressResponse, now: datetime) -> float | None:
    """Return for how long a target wants to hear nothing, within bounds; None: it does not say."""
    text = answer.retry_after or ""
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        with contextlib.suppress(ValueError, TypeError):
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
            return min(_RETRY_AFTER_MAX_SECONDS, max(1.0, seconds))
        return None
    return min(_RETRY_AFTER_MAX_SECONDS, max(1.0, seconds))
