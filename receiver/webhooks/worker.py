"""The webhook worker of a serving process: fans out queued changes and sends due deliveries.

One thread fans out, once a second or after a push. Each endpoint has a few threads of its own, so a hanging endpoint
delays only itself. No transaction is open during a request. While pushes come in, the worker pauses between its steps
for longer than each took; it falls behind and catches up later.
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
from receiver.db.engine import Database, RowRejected
from receiver.db.set_aside import ROW_FAULTS, note_left
from receiver.net.egress import open_client
from receiver.net.egress_policy import EgressError, EgressForbidden, EgressPolicy, EgressUnsendable, parse_url
from receiver.observability import get_logger, metrics
from receiver.webhooks import deliveries, endpoints
from receiver.webhooks.deliveries import BREAKER_FAILURES, LEASE, DeliveryClaim, Failure, QueuedDelivery, Settlement
from receiver.webhooks.fan_out import LEFT_FOR, fan_out, fan_out_one, pop_timer, pop_timers, retry_left
from receiver.webhooks.payloads import EXCHANGE_SECONDS, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.db.availability import CircuitBreaker
    from receiver.messages.queries import Clock
    from receiver.net.egress_client import EgressResponse
    from receiver.webhooks.endpoints import Endpoint

_log = get_logger(__name__)

POLL_SECONDS = 1.0
_POLL_WITHOUT_ENDPOINTS_SECONDS = 5.0
_FAN_OUT_MAX = 500
# A longer step would delay acknowledgements. Once late, steps are long again: most of a step's cost is the same for 50
# and for 500, and short ones may never catch up with a lasting load.
_FAN_OUT_MAX_WHILE_BUSY = 50
_WAITING_MAX = 20  # postponed changes in one pass of single processing
SENT_AT_ONCE = 20  # per claim: what a killed process may have sent unrecorded
THREADS_EACH = 4
# A request must end before the lease does; resolving the name may be slow.
_CLAIM_SECONDS = LEASE.total_seconds() - EXCHANGE_SECONDS - 20
# Pause as a multiple of a step's time, while pushes come in. Fan-out is computing, sending is mostly waiting. A burst
# of pushes has priority; under lasting load the pauses are shorter.
_REST_OF_MAKING, _REST_OF_MAKING_LATE, _REST_OF_SENDING, _REST_MAX_SECONDS = 40.0, 8.0, 2.0, 0.5
_LATE_SECONDS, _VERY_LATE_SECONDS = 30.0, 120.0  # then a step rests only as long as it took: else it may never catch up
_GRACE_SECONDS = 2.0  # for current requests when the process stops
_FIRST_WAIT_SECONDS, _MOST_WAIT_SECONDS, _WAIT_GROWS = 5.0, 6 * 3600.0, 4
_RETRY_AFTER_MAX_SECONDS = 3600.0
_GONE = 410
_RETRY_AFTER_STATUSES = frozenset({429, 503})


class WebhookWorker:
    """Fans out and sends webhooks. One per process; all processes share the work."""

    def __init__(
        self,
        database: Database,
        *,
        availability: CircuitBreaker,
        policy: EgressPolicy,
        clock: Callable[[], Clock],
        is_busy: Callable[[], bool],
    ) -> None:
        self._database = database
        self._availability = availability
        self._policy = policy
        self._clock = clock
        self._is_busy = is_busy  # whether pushes are coming in
        self._senders: dict[int, _EndpointSender] = {}
        self._caught_up_at = time.monotonic()  # when the queue was last empty
        self._retried_at = float("-inf")  # at the first run: another version may have postponed changes
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it after any fork."""
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Wake the worker after a push was saved. Very cheap."""
        if self._senders:
            self._nudged.set()

    def give_way(self, seconds: float) -> None:
        """Pause after a step of making deliveries that took so long, for longer while pushes come in."""
        factor = _REST_OF_MAKING_LATE if self._is_busy() else 1.0
        self._stopping.wait(min(_REST_MAX_SECONDS, factor * seconds))

    def run_now(self) -> None:
        """Wake the worker at once: an endpoint has changed."""
        self._nudged.set()

    def stop(self) -> None:
        """Stop; current requests get two seconds, the rest stays for other processes."""
        self._stopping.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(_GRACE_SECONDS)
        senders = list(self._senders.values())
        deadline = time.monotonic() + _GRACE_SECONDS
        for sender in senders:
            sender.stop(deadline)

    def _run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                more = self._availability.up and self._run_once()
            except Exception as error:  # noqa: BLE001  (edge of the thread: it must go on)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                _log.warning("webhook fan-out failed, retrying", reason=reason)
                self._stopping.wait(POLL_SECONDS)
            if not more:
                known_none = self._availability.up and not self._senders
                self._nudged.wait(_POLL_WITHOUT_ENDPOINTS_SECONDS if known_none else POLL_SECONDS)
            self._nudged.clear()

    def _run_once(self) -> bool:
        """Fan out for up to a second with the present endpoints; return whether there is more."""
        until = time.monotonic() + POLL_SECONDS
        with self._database.reading() as connection:
            found = endpoints.list_endpoints(connection)
        self._update_senders(found)
        if time.monotonic() - self._retried_at > LEFT_FOR.total_seconds():
            self._retried_at = time.monotonic()
            self._database.write(retry_left)
        clock = self._clock()
        after = clock.no_receipt_after
        some = partial(fan_out, no_receipt_after=after), partial(fan_out_one, no_receipt_after=after)
        more = True
        while more and time.monotonic() < until:
            more = self._fan_out(*some)
        if not more:
            self._caught_up_at = time.monotonic()
        if found:
            more |= self._fan_out(partial(pop_timers, clock=clock), partial(pop_timer, clock=clock))
            self._wake()
        return more

    def _fan_out(self, work: Callable[..., int], one: Callable[[Any], bool]) -> bool:
        """Run one step of `work`, or `one` by one after a faulty row; return whether there may be more."""
        begun = time.monotonic()
        behind = begun - self._caught_up_at
        late = behind > _LATE_SECONDS
        limit = _FAN_OUT_MAX_WHILE_BUSY if self._is_busy() and not late else _FAN_OUT_MAX
        try:
            made = self._database.write(partial(work, limit=limit))
        except (RowRejected, *ROW_FAULTS):
            made = limit
            self._fan_out_one_by_one(one, limit)
        if made:
            self._wake()
        self._rest(_rest_factor(behind) * (time.monotonic() - begun))
        return made == limit and not self._stopping.is_set()

    def _fan_out_one_by_one(self, one: Callable[[Any], bool], limit: int) -> None:
        """Process single changes until the faulty one is past. Raises if too many are faulty."""
        waiting = 0
        for _ in range(limit):
            waiting += self._database.write(one)
            if waiting > _WAITING_MAX:
                raise ReceiverError("too many changes cannot be made into deliveries; see the log")
            if self._stopping.is_set():
                return

    def _update_senders(self, found: list[Endpoint]) -> None:
        wanted = {target.id: target for target in found}
        for target_id, sender in list(self._senders.items()):
            if target_id not in wanted or wanted[target_id].url != sender.url:
                self._senders.pop(target_id).stop(time.monotonic())
        for target in found:
            if target.id not in self._senders:
                self._senders[target.id] = _EndpointSender(
                    target, self._database, policy=self._policy, clock=self._clock, rest=self._rest
                )
            self._senders[target.id].paused = target.paused_at is not None

    def _wake(self) -> None:
        for sender in self._senders.values():
            sender.wake()

    def _rest(self, seconds: float) -> None:
        if self._is_busy():
            self._stopping.wait(min(_REST_MAX_SECONDS, seconds))


def _rest_factor(behind_seconds: float) -> float:
    """Return the pause after a step of making deliveries, as a multiple of the step, while pushes come in."""
    if behind_seconds > _VERY_LATE_SECONDS:
        return 1.0
    return _REST_OF_MAKING_LATE if behind_seconds > _LATE_SECONDS else _REST_OF_MAKING


class _EndpointSender:
    """Sends to one endpoint, with up to THREADS_EACH threads."""

    def __init__(
        self,
        target: Endpoint,
        database: Database,
        *,
        policy: EgressPolicy,
        clock: Callable[[], Clock],
        rest: Callable[[float], None],
    ) -> None:
        self._id = target.id
        self._name = target.name
        self.url = target.url
        self._place = parse_url(target.url)
        self._client = open_client(self._place, policy, connections=THREADS_EACH)
        self._database = database
        self._clock = clock
        self._rest = rest
        self.paused = False
        self._woken = False  # since a thread started its search
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Make sure that a thread searches for due deliveries."""
        with self._lock:
            self._woken = True
            if not self._threads and not self.paused and not self._stopping.is_set():
                self._add_thread()

    def stop(self, deadline: float) -> None:
        """Stop until `deadline` (time.monotonic()), then abort current requests."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._client.abort()
        for thread in threads:
            thread.join(_GRACE_SECONDS)
        self._client.close()

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"webhook {self._name}", daemon=True)
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
            except Exception as error:  # noqa: BLE001  (edge of the thread: the next run continues)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                _log.warning("sending webhooks failed, retrying", target=self._name, reason=reason)
                self._stopping.wait(POLL_SECONDS)
            with self._lock:
                going_on = self._woken and not self.paused and not self._stopping.is_set()
                if not going_on:
                    self._threads.discard(threading.current_thread())

    def _send_some(self) -> bool:
        """Send due deliveries; return whether there may be more."""
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
        result = self._send(claim, until=begun + _CLAIM_SECONDS)
        self._settle(result, until=begun + LEASE.total_seconds())
        moved = claim.target.url != self.url
        return not (moved or result.failures_in_row or result.rest is not None or result.pause_because is not None)

    def _send(self, claim: DeliveryClaim, *, until: float) -> Settlement:
        result = Settlement()
        # A new URL may go with new credentials, which the old one must not get: its own sender sends these.
        moved = claim.target.url != self.url
        for delivery in claim.deliveries if not moved else ():
            begun = time.monotonic()
            if self._stopping.is_set() or self.paused or begun > until or not self._send_one(claim, delivery, result):
                break
            self._rest(_REST_OF_SENDING * (time.monotonic() - begun))
        delivered, failed = (delivery for delivery, _ in result.delivered), (one.delivery for one in result.failed)
        noted = {delivery.id for delivery in (*delivered, *result.gone, *failed)}
        result.released = [delivery for delivery in claim.deliveries if delivery.id not in noted]
        return result

    def _send_one(self, claim: DeliveryClaim, delivery: QueuedDelivery, result: Settlement) -> bool:
        """Send a delivery and add its result; return whether to send the next."""
        now = datetime.now(UTC)
        try:
            request = render(claim, delivery, self._place, at=now)
        except ROW_FAULTS as error:  # retried later, finally a dead letter; the others go on
            note_left(delivery.message_id, delivery.push_id, error)
            self._add_failure(result, delivery, f"cannot be written ({type(error).__name__})", "unreadable", own=False)
            return True
        if request is None:
            result.gone.append(delivery)
            metrics.WEBHOOK_ATTEMPTS.labels(self._name, "forgotten").inc()
            return True
        try:
            answer = request.send(self._client)
        except (*ROW_FAULTS, EgressUnsendable) as error:  # such as a header that no request may have
            self._add_failure(result, delivery, f"cannot be sent ({type(error).__name__})", "unsendable", own=False)
            return True
        except (EgressError, EgressForbidden) as error:
            if self._stopping.is_set():
                return False  # we aborted it
            result.last_status, result.last_failed = None, True
            outcome = "forbidden" if isinstance(error, EgressForbidden) else "unreachable"
            self._add_failure(result, delivery, str(error), outcome, own=True)
            return False
        result.last_status, result.last_failed = answer.status, not 200 <= answer.status < 300
        if not result.last_failed:
            result.delivered.append((delivery, answer.status))
            result.failures_in_row = 0
            metrics.WEBHOOK_ATTEMPTS.labels(self._name, "delivered").inc()
            return True
        words = f"answered with HTTP status {answer.status}"
        if answer.status == _GONE:
            result.pause_because = words
            metrics.WEBHOOK_ATTEMPTS.labels(self._name, "gone").inc()
            return False
        if 300 <= answer.status < 400:
            words += ", a redirect, which is not followed: set the URL it leads to"
        failed = answer.status >= 500
        outcome = "failed" if failed else "refused"
        self._add_failure(result, delivery, words, outcome, own=failed, status=answer.status)
        if answer.status in _RETRY_AFTER_STATUSES and (seconds := retry_after_seconds(answer, now)) is not None:
            result.rest = timedelta(seconds=seconds)
            return False
        return result.failures_in_row < BREAKER_FAILURES

    def _add_failure(
        self,
        result: Settlement,
        delivery: QueuedDelivery,
        words: str,
        outcome: str,
        *,
        own: bool,
        status: int | None = None,
    ) -> None:
        wait = timedelta(seconds=wait_seconds(delivery.attempts))
        result.failed.append(Failure(delivery=delivery, error=words, wait=wait, status=status))
        result.failures_in_row += own
        metrics.WEBHOOK_ATTEMPTS.labels(self._name, outcome).inc()

    def _settle(self, result: Settlement, *, until: float) -> None:
        """Record the results of a claim; retry while the database is unavailable, or it would be sent again."""
        while True:
            try:
                self._database.write(partial(deliveries.settle, target_id=self._id, result=result))
            except DatabaseUnavailable:
                if time.monotonic() > until or self._stopping.wait(POLL_SECONDS):
                    raise
            else:
                return


def wait_seconds(attempts: int) -> float:
    """Return a random wait before the retry, up to a limit that grows with the number of failures."""
    bound = min(_MOST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * _WAIT_GROWS ** min(attempts, 20))
    return random.uniform(1.0, bound)  # noqa: S311  (spreads retries of simultaneous failures)


def retry_after_seconds(answer: EgressResponse, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header, within limits; None: no valid header."""
    text = answer.header("Retry-After") or ""
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        with contextlib.suppress(ValueError, TypeError):
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
            return min(_RETRY_AFTER_MAX_SECONDS, max(1.0, seconds))
        return None
    return min(_RETRY_AFTER_MAX_SECONDS, max(1.0, seconds))
