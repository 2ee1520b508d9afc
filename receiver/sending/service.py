"""Sends through the platform, and records every send even if a process dies.

Order: record the attempt, send the request, record its result, answer the caller. (The send proxy answers while the
result is being recorded.) Request and record run in a separate thread. The caller waits a limited time; a later answer
is still recorded.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from receiver.core import (
    MessageStatus,
    OwnRefusal,
    ReceiverError,
    SendAttempt,
    SendResult,
    SettingsError,
    is_masked,
    new_id,
    parse_mobile,
    read_refusal,
    whole_milliseconds,
)
from receiver.messages.balance import Reading
from receiver.observability import get_logger, metrics
from receiver.platform.client import (
    BALANCE_PATH,
    OVER_LOCAL_LIMIT,
    SEND_PATH,
    Credentials,
    PlatformAnswer,
    PlatformClient,
    PlatformProtocolError,
    PlatformRefusal,
    PlatformUnreachable,
    RawAnswer,
    explain,
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

PATIENCE_SECONDS = 28.0  # the caller gets its answer within 30
_WORKERS = 64
_POLL_SECONDS = 0.1
_NOTICE_EVERY = timedelta(days=1)


class PlatformRefused(ReceiverError):
    """The platform refused; the text is the platform's."""

    @property
    def meaning(self) -> PlatformRefusal:
        """What it means, and what helps."""
        return explain(str(self))


class LocalLimitReached(PlatformRefused):
    """A limit of our own refused, before the platform was asked."""

    @property
    def meaning(self) -> PlatformRefusal:
        """What it means, and what helps."""
        return OVER_LOCAL_LIMIT


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeRequest:
    """A validated request to send a verification code."""

    account: str
    mobile: str = field(repr=False)
    template_id: str
    code: str = field(repr=False)
    reference: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedRequest:
    """A sender's request to the platform, unchanged, and its parsed fields."""

    method: str
    target: str = field(repr=False)  # `/smsApi/...` or a sibling, as on the wire: ASCII
    headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    interface: str | None  # SEND_PATH or BALANCE_PATH; None: another interface
    fields: Mapping[str, str] = field(repr=False)  # parameters from query and body


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """The result of a send."""

    attempt_id: UUID
    message_id: int | None  # None: the record is spooled, the database is unavailable
    state: MessageStatus | None  # None: the platform accepted it; else REFUSED or OUTCOME_UNKNOWN
    error_message: str | None = None
    answer: PlatformAnswer | None = None  # the platform's valid answer in this call, if any
    raw: RawAnswer | None = field(default=None, repr=False)
    error: PlatformUnreachable | PlatformProtocolError | None = None  # in this call
    replayed: bool = False  # the result of an earlier call with the same key

    def require_accepted(self) -> None:
        """Raise if it was not accepted: PlatformRefused, PlatformUnreachable or PlatformProtocolError."""
        message = self.error_message or ""
        if self.error is not None:
            raise self.error
        if self.state is None:
            return
        if self.state is MessageStatus.OUTCOME_UNKNOWN:
            raise PlatformProtocolError(message)
        code, words = read_refusal(message)
        match code:
            case OwnRefusal.NOT_SENT:
                raise PlatformUnreachable(words)
            case OwnRefusal.LOCAL_LIMIT:
                raise LocalLimitReached(message)
            case None:
                raise PlatformRefused(message)


class Sender:
    """Sends for one process. Thread-safe; no thread starts before the first call."""

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
        """Send a code and return the result, within 30 seconds.

        A repeated key sends nothing and returns the first request's result, waiting for it if necessary. Raises
        SettingsError (no credentials), KeyReused, DatabaseUnavailable (only with a key) or SpoolUnavailable; nothing
        was sent then.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        credentials = self._credentials_of(request.account)
        claim = None
        if idempotency_key is not None:
            claim = IdempotencyClaim(caller=caller, key=idempotency_key, fingerprint=_fingerprint(credentials, request))
        attempt = _attempt(request.account, request.mobile, request.template_id, request.reference)
        body = send_form(credentials, mobile=request.mobile, template_id=request.template_id, code=request.code)
        recorded = self._recorder.begin(attempt, day_began=self._day_began(), claim=claim, limits=self._limits)
        if recorded is not None and recorded.repeated:
            return replace(_sent(self._outcome_of_first(recorded, deadline)), replayed=True)
        if recorded is not None and recorded.state is MessageStatus.REFUSED:
            metrics.SENDS.labels("local_limit").inc()
            return _sent(recorded)
        return self._exchange(attempt, lambda: self._client.post(SEND_PATH, body), deadline)

    def pass_on(self, request: PassedRequest) -> RawAnswer:
        """Forward a sender's request to the platform and return its answer unchanged. A send is recorded.

        It is recorded before it goes out, and its result while the answer is returned. Raises
        PlatformUnreachable, PlatformProtocolError or, before anything is sent, SpoolUnavailable.
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
                self._save_balance(account, asked_at, raw)
            else:
                metrics.SENDS.labels("unrecorded").inc()  # a message needs its number
            return raw
        deadline = time.monotonic() + PATIENCE_SECONDS
        attempt = _attempt(account, mobile, fields.get("templateId") or None, None)
        self._recorder.begin(attempt, day_began=self._day_began())
        answered: Future[RawAnswer] = Future()
        pending = self._send_in_thread(attempt, call, answered)
        try:
            return answered.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            error = _timeout_error(pending)
            self._record(attempt, error=error)
            raise error from None

    def read_balance(self, account: str) -> Reading:
        """Query and save an account's balance.

        Raises SettingsError, PlatformUnreachable, PlatformProtocolError or PlatformRefused.
        """
        credentials = self._credentials_of(account)
        asked_at = datetime.now(UTC)
        answer = self._client.read_balance(credentials)
        if not answer.accepted or answer.remain_point is None:
            raise PlatformRefused(answer.message or "the platform returned no balance")
        return self._save_reading(account, asked_at, answer.remain_point)

    def close(self) -> None:
        """Wait until current sends are recorded, then close."""
        self._closing = True  # requests not started are recorded as not sent
        if self._pool is not None:
            self._pool.shutdown()
        self._client.close()

    # --- One exchange ---

    def _exchange(self, attempt: SendAttempt, call: Callable[[], RawAnswer], deadline: float) -> Sent:
        """Send one request and record its result; wait for both until the deadline."""
        pending = self._send_in_thread(attempt, call)
        try:
            return pending.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            return self._record(attempt, error=_timeout_error(pending))

    def _send_in_thread(
        self, attempt: SendAttempt, call: Callable[[], RawAnswer], answered: Future[RawAnswer] | None = None
    ) -> Future[Sent]:
        """Send a request and record its result in a thread; `answered` receives the answer as soon as it arrives."""
        answer: Future[RawAnswer] = answered or Future()
        try:
            return self._workers().submit(self._call_and_record, attempt, call, answer)
        except RuntimeError:  # closed meanwhile
            error = _stopping_error()
            answer.set_exception(error)
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
        """Send a request. Raises PlatformUnreachable (not sent) or PlatformProtocolError (it may have arrived)."""
        if self._closing:
            raise _stopping_error()
        try:
            return call()
        except (PlatformUnreachable, PlatformProtocolError):
            raise
        except Exception as error:  # noqa: BLE001  (the caller needs a result, and the attempt must end)
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
            self._warn_if_low(attempt.account, result.remain_point)
        return Sent(
            attempt_id=attempt.id,
            message_id=message_id,
            state=result.state,
            error_message=result.error_message,
            answer=answer,
            raw=raw,
            error=error,
        )

    def _outcome_of_first(self, recorded: AttemptState, deadline: float) -> AttemptState:
        while recorded.state is MessageStatus.SENDING and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            recorded = self._recorder.find(recorded.id)
        return recorded

    def _workers(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="send")
            return self._pool

    # --- The balance ---

    def _save_balance(self, account: str, asked_at: datetime, raw: RawAnswer) -> None:
        try:
            answer = read_answer(raw)
        except PlatformProtocolError:
            return
        if answer.accepted and answer.remain_point is not None:
            self._save_reading(account, asked_at, answer.remain_point)

    def _save_reading(self, account: str, asked_at: datetime, remain_point: int) -> Reading:
        reading = Reading(account=account, asked_at=asked_at, answered_at=datetime.now(UTC), remain_point=remain_point)
        self._recorder.save_reading(reading)
        self._warn_if_low(account, remain_point)
        return reading

    def _warn_if_low(self, account: str, remain_point: int) -> None:
        """Log once a day that an account's balance is low."""
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
            raise SettingsError(f"no credentials for account {account}; set RECEIVER_PLATFORM_CREDENTIALS") from None

    def _account_of(self, app_id: str) -> str:
        """Return the account of a sender's credentials: the configured one, else the only account, else `default`."""
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


def _sent(recorded: AttemptState) -> Sent:
    state = MessageStatus.OUTCOME_UNKNOWN if recorded.state is MessageStatus.SENDING else recorded.state
    return Sent(
        attempt_id=recorded.id, message_id=recorded.message_id, state=state, error_message=recorded.error_message
    )


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
            error_message="the platform accepted it but returned no task id",
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
        error_message=OwnRefusal.NOT_SENT.write(str(error)) if unsent else str(error),
    )


def _stopping_error() -> PlatformUnreachable:
    return PlatformUnreachable("this process is stopping")


def _timeout_error(pending: Future[Sent]) -> PlatformUnreachable | PlatformProtocolError:
    if pending.cancel():
        return PlatformUnreachable("too many requests are under way")
    return PlatformProtocolError("the platform did not answer in time", timed_out=True)


def _fingerprint(credentials: Credentials, request: CodeRequest) -> bytes:
    """Return a hash that identifies a request. Keyed: a code of 2 to 8 digits can be guessed from a plain hash."""
    fields = [request.account, request.mobile, request.template_id, request.code, request.reference]
    return hmac.new(credentials.app_key.encode(), json.dumps(fields).encode(), hashlib.sha256).digest()
