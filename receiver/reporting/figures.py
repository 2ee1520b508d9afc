"""Parameters of a delivery report, and its figures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo


HOUR, DAY = 3600, 86400


class Unit(StrEnum):
    """The unit of time to group by."""

    MONTH = "month"
    DAY = "day"
    HOUR = "hour"
    FIVE_MINUTES = "five_minutes"


_FINE = (Unit.HOUR, Unit.FIVE_MINUTES)
_WIDTH = {Unit.MONTH: DAY, Unit.DAY: DAY, Unit.HOUR: HOUR, Unit.FIVE_MINUTES: 300}


class ZonePeriod(NamedTuple):
    """A time in which a zone has one offset."""

    since: datetime  # UTC
    until: datetime
    offset: int  # seconds east of UTC


GroupKey = tuple[str | None, ...]  # time, template, account; as text, a missing template as None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportQuestion:
    """The parameters of a report."""

    since: datetime  # UTC
    until: datetime
    zone: ZoneInfo
    unit: Unit | None = None
    by_template: bool = False
    by_account: bool = False
    accounts: tuple[str, ...] | None = None
    template_id: str | None = None
    allocated: tuple[CarrierGroup, ...] = ()
    counts_alone: bool = False  # without latencies, which are stored by day only


@dataclass(frozen=True, kw_only=True, slots=True)
class CarrierGroup:
    """Allocation of numbers, to group by or to filter by."""

    name: str  # `operator` or `province`
    of_prefix: Callable[[str], str | None]  # by the first digits of a number
    grouped: bool
    wanted: str | None = None
    of_prefixes: str = "{}"  # JSON, of those that there are


@dataclass(slots=True)
class DeliveryFigures:
    """The counts of one group."""

    sent: int = 0
    refused: int = 0
    outcome_unknown: int = 0
    delivered: int = 0
    failed: int = 0
    unknown: int = 0
    pending: int = 0
    no_receipt: int = 0
    unmatched: int = 0
    verified: int = 0
    latencies: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # whole seconds: messages

    def add(self, other: DeliveryFigures) -> None:
        """Add another group's counts."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for seconds, count in other.latencies.items():
            self.latencies[seconds] += count

    @property
    def empty(self) -> bool:
        """Return whether all counts are zero."""
        return not any(getattr(self, name) for name in COUNTED)

    @property
    def delivery_rate(self) -> float | None:
        """Delivered of sent."""
        return self.delivered / self.sent if self.sent else None

    @property
    def conversion_rate(self) -> float | None:
        """Codes that were used, of sent."""
        return self.verified / self.sent if self.sent else None

    @property
    def match_rate(self) -> float | None:
        """Of the messages that the platform reported on, the share whose send is recorded."""
        matched = self.delivered + self.failed + self.unknown
        return matched / (matched + self.unmatched) if matched + self.unmatched else None

    def percentiles_seconds(self, percents: Sequence[int]) -> list[int | None]:
        """Return the latencies that so many percent (ascending) of the delivered did not exceed, by nearest rank."""
        total = sum(self.latencies.values())
        if not total:  # counts that moved elsewhere leave zeros behind
            return [None] * len(percents)
        found: list[int | None] = []
        reached = 0
        for seconds, count in sorted(self.latencies.items()):
            reached += count
            while len(found) < len(percents) and reached >= -(-total * percents[len(found)] // 100):
                found.append(seconds)
        return found


Groups = defaultdict[GroupKey, DeliveryFigures]


COUNTED = (
    "sent", "refused", "outcome_unknown", "delivered", "failed", "unknown", "pending", "no_receipt", "unmatched",
    "verified",
)  # fmt: skip
