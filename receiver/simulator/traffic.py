"""The pushes for each message, decided by a seed: the same messages give the same pushes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote_plus
from zoneinfo import ZoneInfo

from receiver.core import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONE = ZoneInfo("Asia/Shanghai")
_TIME = "%Y-%m-%d %H:%M:%S"
_MEDIAN_LATENCY_SECONDS = 3.0
_LATENCY_SPREAD = 0.8  # of the logarithm
_MAX_LATENCY_SECONDS = 60.0
_PUSHED_WITHIN_SECONDS = 5.0  # of real time, whatever the simulated delay
_DELAYED_SHARE = 0.3  # of the messages, if `max_delay` is set
_REPLY_TEXTS = (
    "收到", "谢谢", "退订", "T", "好的,明天见 😀", "", "1", "a&b=c+d %41", "多谢\n再见", "TD",
    "这是什么?没申请过", "Stop!", "ок", "退丁", "别再发了,再发就投诉",
)  # fmt: skip
_REPLY_TEXTS_OF_GB = ("收到", "退订", "您好,请勿再发", "稍后回电")
MASKED_PLACES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PushFaults:
    """The faults of the pushes; every rate is a share from 0 to 1."""

    failures: float = 0.03  # delivery fails
    lost: float = 0.0  # no receipt ever
    flips: float = 0.0  # a second receipt says the opposite
    replies: float = 0.02  # the recipient replies
    duplicates: float = 0.0  # pushed again, once to three times
    early: float = 0.0  # the receipt comes before the answer to the send
    masked: float = 0.0  # the number comes with `*`
    gb18030: float = 0.0  # text not in UTF-8
    in_query: float = 0.0  # parameters behind `?`, no body
    slow: float = 0.0  # the body trickles in
    reorder: bool = False  # the pushes of a message come in any order
    max_delay: timedelta = timedelta(0)  # times up to this long after the send, but pushed soon
    hurry: bool = False  # push at once, with the times of a delayed push


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedMessage:
    """One message that the simulator has sent."""

    task_id: str
    mobile: str
    template_id: str
    sent_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPush:
    """One push to make, and the data that the receiver must have of it."""

    kind: Kind
    task_id: str
    mobile: str  # as pushed: masked places as `*`
    said: str  # the status, or the content
    at: datetime  # UTC, whole seconds
    form: bytes
    in_query: bool
    slow: bool
    after_seconds: float  # of real time, from the send

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """The fields that two copies of a push share."""
        return (self.kind, self.task_id, self.mobile, self.said, self.at.isoformat())


def plan(message: SimulatedMessage, seed: int, how: PushFaults) -> list[PlannedPush]:
    """Return every push of a message, in the order of their times."""
    chance = random.Random(f"{seed}:{message.task_id}")  # noqa: S311  (repeatable is the point)
    receipts = [] if chance.random() < how.lost else list(_receipts(message, chance, how))
    planned = receipts + list(_replies(message, chance, how))
    copied = [push for push in planned for _ in range(_copies(chance, how))]
    if how.reorder:
        chance.shuffle(copied)
    return copied


def is_early(message: SimulatedMessage, seed: int, how: PushFaults) -> bool:
    """Return whether the first push of a message comes before the answer to its send."""
    return random.Random(f"{seed}:early:{message.task_id}").random() < how.early  # noqa: S311


def _receipts(message: SimulatedMessage, chance: random.Random, how: PushFaults) -> Iterator[PlannedPush]:
    status = "0" if chance.random() < how.failures else "1"
    delay = _delay(chance, how)
    yield _planned(message, Kind.RECEIPT, status, delay, chance, how)
    if chance.random() < how.flips:
        other = "1" if status == "0" else "0"
        later = delay + timedelta(seconds=chance.choice((0, 1, 60, 86400)))
        yield _planned(message, Kind.RECEIPT, other, later, chance, how)


def _replies(message: SimulatedMessage, chance: random.Random, how: PushFaults) -> Iterator[PlannedPush]:
    if chance.random() < how.replies:
        delay = _delay(chance, how) + timedelta(seconds=chance.randint(5, 600))
        yield _planned(message, Kind.REPLY, None, delay, chance, how)


def _delay(chance: random.Random, how: PushFaults) -> timedelta:
    if how.max_delay and chance.random() < _DELAYED_SHARE:
        return how.max_delay * chance.random()
    seconds = chance.lognormvariate(0, _LATENCY_SPREAD) * _MEDIAN_LATENCY_SECONDS
    return timedelta(seconds=min(seconds, _MAX_LATENCY_SECONDS))


def _copies(chance: random.Random, how: PushFaults) -> int:
    return 1 + (chance.randint(1, 3) if chance.random() < how.duplicates else 0)


def _planned(
    message: SimulatedMessage, kind: Kind, said: str | None, delay: timedelta, chance: random.Random, how: PushFaults
) -> PlannedPush:
    in_gb = chance.random() < how.gb18030
    if said is None:
        said = chance.choice(_REPLY_TEXTS_OF_GB if in_gb else _REPLY_TEXTS)
    mobile = message.mobile
    if chance.random() < how.masked:
        mobile = mobile[:-MASKED_PLACES] + "*" * MASKED_PLACES
    at = (message.sent_at + delay).replace(microsecond=0)
    fields = {
        "mobile": mobile,
        "taskid": message.task_id,
        "status" if kind is Kind.RECEIPT else "content": said,
        "receivetime": at.astimezone(ZONE).strftime(_TIME),
    }
    encoding = "gb18030" if in_gb else "utf-8"
    form = "&".join(f"{name}={quote_plus(value, encoding=encoding)}" for name, value in fields.items())
    wait = 0.0 if how.hurry else min(delay.total_seconds(), _PUSHED_WITHIN_SECONDS * (1 + chance.random()))
    return PlannedPush(
        kind=kind,
        task_id=message.task_id,
        mobile=mobile,
        said=said,
        at=at,
        form=form.encode("ascii"),
        in_query=chance.random() < how.in_query,
        slow=chance.random() < how.slow,
        after_seconds=wait,
    )


def generate_messages(count: int, days: int, seed: int, now: datetime) -> list[SimulatedMessage]:
    """Return messages of the last days, as of a shop: more of recent days, some numbers and templates more often."""
    chance = random.Random(f"{seed}:messages")  # noqa: S311
    span_seconds = max(days, 1) * 86400 if days else 60
    numbers = [f"1{chance.choice('3578')}{chance.randrange(10**9):09d}" for _ in range(max(1, count // 3))]
    templates = [str(540 + number) for number in range(8)]
    weights = [1 / (number + 1) for number in range(len(templates))]
    messages = []
    for number in range(count):
        moment = now - timedelta(seconds=chance.random() ** 1.2 * span_seconds)
        messages.append(
            SimulatedMessage(
                task_id=f"{seed % 10**6:06d}{number:07d}",
                mobile=chance.choice(numbers),
                template_id=chance.choices(templates, weights)[0],
                sent_at=moment.replace(microsecond=moment.microsecond // 1000 * 1000),
            )
        )
    return sorted(messages, key=lambda message: message.sent_at)
