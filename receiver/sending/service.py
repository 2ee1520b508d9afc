"""Sends through the platform, so that whatever dies, what is known of a send is recorded.

In this order: the attempt is noted, the request goes out, its result is recorded, the caller hears of it (through the
door, while it is being recorded). The request and its record run apart from the caller, who waits a bounded time: an
answer that comes later is recorded all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from receiver.core import (
    MessageStatus,
    ReceiverError,
    SendAttempt,
    SendResult,
    SettingsError,
    is_masked,
    new_id,
    parse_mobile,
    whole_milliseconds,
)
from receiver.messages import Reading
from receiver.observability import get_logger, metrics
from receiver.platform.client import (
    BALANCE_PATH,
    SEND_PATH,
    Credentials,
    PlatformAnswer,
    PlatformClient,
    PlatformProtocolError,
    PlatformUnreachable,
    RawAnswer,
    read_answer,
    send_form,
)
from receiver.sending.attempts import AttemptState, IdempotencyClaim, SendLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from receiver.config import Settings
    from receiver.sending.recorder import Recorder

_log = get_logger(__name__)

PATIENCE_SECONDS = 28.0  # the caller hears within 30
_WORKERS = 64
_POLL_SECONDS = 0.1
_NOT_SENT = "not sent: "  # begins the words of an attempt that never reached the platform
_NOTICE_EVERY = timedelta(days=1)


class PlatformRefused(ReceiverError):
    """The platform would not do it; the text is its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeRequest:
    """A verification code to be sent, checked."""

    account: str
    mobile: str = field(repr=False)
    template_id: str
    code: str = field(repr=False)
    reference: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedRequest:
    """What another sender asks of the platform, as it came, and what was read of it."""

    method: str
    target: str = field(repr=False)  # `/smsApi/...` or a sibling, as on the wire: ASCII
    headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    interface: str | None  # SEND_PATH or BALANCE_PATH; None: another, of which nothing is known
    fields: Mapping[str, str] = field(repr=False)  # its parameters, wherever they stood


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What became of a send."""

    attempt_id: UUID
    message_id: int | None  # None: the database is away, the record waits in the spool
    state: MessageStatus | None  # None: the platform took it; else REFUSED or OUTCOME_UNKNOWN
    error_message: str | None = None
    answer: PlatformAnswer | None = None  # where the platform said something that can be read, in this very call
    raw: RawAnswer | None = field(default=None, repr=False)
    error: PlatformUnreachable | PlatformProtocolError | None = None  # in this very call

    def require_accepted(self) -> None:
        """Raise what kept it from being sent: PlatformRefused, PlatformUnreachable or NoUsableAnswer."""
        words = self.error_message or ""
        if self.error is not None:
            raise self.error
        if self.state is MessageStatus.OUTCOME_UNKNOWN:
            raise PlatformProtocolError(words)
        if words.startswith(_NOT_SENT):
            raise PlatformUnreachable(words.removeprefix(_NOT_SENT))
        if self.state is MessageStatus.REFUSED:
            raise PlatformRefused(words)


class Sender:
    """Sends for one process. Safe for many threads; nothing starts before the first call."""

    def __init__(self, settings: Settings, recorder: Recorder, client: PlatformClient) -> None:
        self._settings = settings
        self._credentials = {
            account: Credentials(account=account, app_id=app_id, app_key=app_key)
            for account, app_id, app_key in settings.platform_credentials
        }
        self._limits = SendLimits(
            min_interval=settings.send_min_interval,
            per_number_per_day=settings.send_max_per_number_per_day,
            per_day=settings.send_max_per_day,
        )
        self._recorder = recorder
        self._client = client
        self._starting = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closing = False

    @property
    def accounts(self) -> list[str]:
        """The accounts that can send."""
        return sorted(self._credentials)

    def send(self, request: CodeRequest, *, caller: str, idempotency_key: str | None = None) -> Sent:
        """Send a code and give what became of it, within 30 seconds.

        A key that the caller has given before sends nothing: the first one's fate is given, waited for while it is
        under way. Raises SettingsError (no credentials), KeyReused, StoreUnavailable (with a key and without the
        database) or SpoolUnavailable; nothing was sent then.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        credentials = self._credentials_of(request.account)
        claim = None
        if idempotency_key is not None:
            claim = IdempotencyClaim(caller=caller, key=idempotency_key, fingerprint=_fingerprint(credentials, request))
        attempt = _attempt(request.account, request.mobile, request.template_id, request.reference)
        body = send_form(credentials, mobile=request.mobile, template_id=request.template_id, code=request.code)
        noted = self._recorder.begin(attempt, day_began=self._day_began(), claim=claim, limits=self._limits)
        if noted is not None and noted.repeated:
            return _sent(self._outcome_of_first(noted, deadline))
        if noted is not None and noted.state is MessageStatus.REFUSED:
            metrics.SENDS.labels("local_limit").inc()
            return _sent(noted)
        return self._exchange(attempt, lambda: self._client.post(SEND_PATH, body), deadline)

    def pass_on(self, request: PassedRequest) -> RawAnswer:
        """Pass a request of another sender on to the platform and give its answer as it is. A send is recorded.

        It is noted before it goes out; its result is recorded while the answer is on its way back. Raises
        PlatformUnreachable, NoUsableAnswer or, before anything is sent, SpoolUnavailable.
        """

        def call() -> RawAnswer:
            return self._client.pass_on(
                request.target,
                request.body,
                method=request.method,
                headers=request.headers,
                name=request.interface or "other",
            )

        fields = request.fields
        account = self._account_of(fields.get("appId", ""))
        mobile = parse_mobile(fields.get("phone", ""))
        if request.interface != SEND_PATH or mobile is None or is_masked(mobile):
            asked_at = datetime.now(UTC)
            raw = self._call(call)
            if request.interface == BALANCE_PATH:
                self._note_balance(account, asked_at, raw)
            else:
                metrics.SENDS.labels("unrecorded").inc()  # no message is known without its number
            return raw
        deadline = time.monotonic() + PATIENCE_SECONDS
        attempt = _attempt(account, mobile, fields.get("templateId") or None, None)
        self._recorder.begin(attempt, day_began=self._day_began())
        answered: Future[RawAnswer] = Future()
        under_way = self._submit(attempt, call, answered)
        try:
            return answered.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            error = _given_up(under_way)
            self._record(attempt, error=error)
            raise error from None

    def read_balance(self, account: str) -> Reading:
        """Ask the platform for an account's balance, and keep it.

        Raises SettingsError, PlatformUnreachable, NoUsableAnswer or PlatformRefused.
        """
        credentials = self._credentials_of(account)
        asked_at = datetime.now(UTC)
        answer = self._client.read_balance(credentials)
        if not answer.accepted or answer.remain_point is None:
            raise PlatformRefused(answer.message or "the platform named no balance")
        return self._keep_reading(account, asked_at, answer.remain_point)

    def close(self) -> None:
        """Record what is under way, then close."""
        self._closing = True  # what has not begun is recorded as not sent
        if self._pool is not None:
            self._pool.shutdown()
        self._client.close()

    # --- One exchange ---

    def _exchange(self, attempt: SendAttempt, call: Callable[[], RawAnswer], deadline: float) -> Sent:
        """Make one request and record its result; wait for both until the deadline."""
        under_way = self._submit(attempt, call)
        try:
            return under_way.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            return self._record(attempt, error=_given_up(under_way))

    def _submit(
        self, attempt: SendAttempt, call: Callable[[], RawAnswer], answered: Future[RawAnswer] | None = None
    ) -> Future[Sent]:
        """Have a request made and its result recorded; `answered` has the answer as soon as it is there."""
        told: Future[RawAnswer] = answered or Future()
        try:
            return self._workers().submit(self._call_and_record, attempt, call, told)
        except RuntimeError:  # closed since we looked
            error = _stopping()
            told.set_exception(error)
            done: Future[Sent] = Future()
            done.set_result(self._record(attempt, error=error))
            return done

    def _call_and_record(
        self, attempt: SendAttempt, call: Callable[[], RawAnswer], answered: Future[RawAnswer]
    ) -> Sent:
        raw: RawAnswer | None = None
        try:
            raw = self._call(call)
            answered.set_result(raw)
            return self._record(attempt, raw=raw, answer=read_answer(raw))
        except (PlatformUnreachable, PlatformProtocolError) as error:
            if raw is None:
                answered.set_exception(error)
            return self._record(attempt, raw=raw, error=error)

    def _call(self, call: Callable[[], RawAnswer]) -> RawAnswer:
        """Make a request. Whatever it raises is told as one of two: nothing was sent, or it may have arrived."""
        if self._closing:
            raise _stopping()
        try:
            return call()
        except (PlatformUnreachable, PlatformProtocolError):
            raise
        except Exception as error:  # noqa: BLE001  (somebody waits for it, and its attempt is to end)
            _log.error("request to the platform failed", error=type(error).__name__)
            raise PlatformProtocolError(f"the request failed ({type(error).__name__})") from None

    def _record(
        self,
        attempt: SendAttempt,
        *,
        raw: RawAnswer | None = None,
        answer: PlatformAnswer | None = None,
        error: PlatformUnreachable | PlatformProtocolError | None = None,
    ) -> Sent:
        result = _result_of_answer(answer) if answer else _result_of_error(error)
        message_id = self._recorder.finish(attempt, result)
        outcome = result.state.value if result.state else "accepted"
        metrics.SENDS.labels(outcome).inc()
        _log.info("sent", attempt_id=str(attempt.id), account=attempt.account, outcome=outcome)
        if result.remain_point is not None:
            self._watch(attempt.account, result.remain_point)
        return Sent(
            attempt_id=attempt.id,
            message_id=message_id,
            state=result.state,
            error_message=result.error_message,
            answer=answer,
            raw=raw,
            error=error,
        )

    def _outcome_of_first(self, noted: AttemptState, deadline: float) -> AttemptState:
        while noted.state is MessageStatus.SENDING and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            noted = self._recorder.find(noted.id)
        return noted

    def _workers(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="send")
            return self._pool

    # --- The balance ---

    def _note_balance(self, account: str, asked_at: datetime, raw: RawAnswer) -> None:
        try:
            answer = read_answer(raw)
        except PlatformProtocolError:
            return
        if answer.accepted and answer.remain_point is not None:
            self._keep_reading(account, asked_at, answer.remain_point)

    def _keep_reading(self, account: str, asked_at: datetime, remain_point: int) -> Reading:
        reading = Reading(account=account, asked_at=asked_at, answered_at=datetime.now(UTC), remain_point=remain_point)
        self._recorder.keep_reading(reading)
        self._watch(account, remain_point)
        return reading

    def _watch(self, account: str, remain_point: int) -> None:
        """Say, once a day, that an account runs low."""
        threshold = self._settings.balance_low_of(account)
        if threshold is not None and remain_point < threshold:
            name = f"balance_low:{account}"
            if self._recorder.claim_notice(name, every=_NOTICE_EVERY):
                _log.warning("balance low", account=account, remain_point=remain_point, threshold=threshold)

    # --- Small decisions ---

    def _credentials_of(self, account: str) -> Credentials:
        try:
            return self._credentials[account]
        except KeyError:
            raise SettingsError(
                f"no credentials for the account {account}; set RECEIVER_PLATFORM_CREDENTIALS"
            ) from None

    def _account_of(self, app_id: str) -> str:
        """Return the account of a sender's own credentials: the one they are configured for, else the only one."""
        for account, credentials in self._credentials.items():
            if credentials.app_id == app_id:
                return account
        known = sorted(self._settings.accounts)
        return known[0] if len(known) == 1 else "default"

    def _day_began(self) -> datetime:
        now = datetime.now(self._settings.timezone)
        return now.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def _attempt(account: str, mobile: str, template_id: str | None, reference: str | None) -> SendAttempt:
    return SendAttempt(
        id=new_id(),
        account=account,
        mobile=mobile,
        template_id=template_id,
        reference=reference,
        sent_at=whole_milliseconds(datetime.now(UTC)),
    )


def _sent(noted: AttemptState) -> Sent:
    state = MessageStatus.OUTCOME_UNKNOWN if noted.state is MessageStatus.SENDING else noted.state
    return Sent(attempt_id=noted.id, message_id=noted.message_id, state=state, error_message=noted.error_message)


def _result_of_answer(answer: PlatformAnswer) -> SendResult:
    now = datetime.now(UTC)
    if not answer.accepted:
        words = answer.message or "the platform gave no reason"
        return SendResult(
            state=MessageStatus.REFUSED, answered_at=now, error_message=words, remain_point=answer.remain_point
        )
    if answer.task_id is None:
        return SendResult(
            state=MessageStatus.OUTCOME_UNKNOWN,
            answered_at=now,
            error_message="the platform took it and named no task id",
            remain_point=answer.remain_point,
        )
    return SendResult(
        state=None,
        answered_at=now,
        task_id=answer.task_id,
        success_counts=answer.success_counts,
        remain_point=answer.remain_point,
    )


def _result_of_error(error: PlatformUnreachable | PlatformProtocolError | None) -> SendResult:
    unsent = isinstance(error, PlatformUnreachable)
    return SendResult(
        state=MessageStatus.REFUSED if unsent else MessageStatus.OUTCOME_UNKNOWN,
        answered_at=datetime.now(UTC),
        error_message=f"{_NOT_SENT}{error}" if unsent else str(error),
    )


def _stopping() -> PlatformUnreachable:
    return PlatformUnreachable("this process is stopping")


def _given_up(under_way: Future[Sent]) -> PlatformUnreachable | PlatformProtocolError:
    if under_way.cancel():
        return PlatformUnreachable("too many requests are under way")
    return PlatformProtocolError("the platform did not answer in time", timed_out=True)


def _fingerprint(credentials: Credentials, request: CodeRequest) -> bytes:
    """Tell two requests apart. Keyed by what no database holds: 2 to 8 digits are guessed from a plain hash."""
    fields = [request.account, request.mobile, request.template_id, request.code, request.reference]
    return hmac.new(credentials.app_key.encode(), json.dumps(fields).encode(), hashlib.sha256).digest()
