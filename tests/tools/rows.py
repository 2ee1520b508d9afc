"""What the servers are filled with: rows that tools have read wrongly, among many plain ones.

The first hundred messages, and the last, have neither template nor reference, so that a tool that infers a type from
these has nothing to go by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

MOBILE = "15080921090"
MASKED = "1508092****"
REPORTED = "2026-11-20 10:00:05"  # the platform's zone
_ZONE = ZoneInfo("Asia/Shanghai")
_PLAIN = 110
_BEGUN = datetime(2026, 11, 20, 9, 0, tzinfo=_ZONE)

# What is text, and looks like something else.
TASK_IDS = (
    "0000070000000",
    "1234567890123456789",
    "99999999999999999999",
    "-5",
    "=1+1",
    "+86",
    "@sum",
    "1e5",
    "0x1F",
    "true",
    "007.50",
    "2026-11-20",
    "12:30",
    "Infinity",
)
# A record of a send with these is refused, since a spreadsheet or data frame made it so; the platform may push them.
PUSHED_TASK_IDS = ("NULL", "null", "nan", "NaN", "N/A", "None", "'5", "1.0")
TEMPLATES = ("007", "540", "+5", "=1+1", "1e3")
REFERENCES = ("nan", "订单😀", 'say "yes"; a,b', "=HYPERLINK(1)", "0012", "-", "1e3", "\\N", "' '")
CONTENTS = (
    "",
    "退订",
    "line\r\nbreak\nand\rmore",
    "👍🏽 好的 😀",
    "=1+1",
    "NULL",
    "nan",
    "0012",
    '"quoted", a;b\tc',
    " kept ",
    "𠮷野家\u2028“é”",
    "\\N",
    "'5",
    "1234567890123456789",
    "'",
    "-",
)


@dataclass(frozen=True)
class Push:
    """One push of the platform, as a form."""

    task_id: str | None
    mobile: str = MOBILE
    status: str | None = None
    content: str | None = None
    at: str = REPORTED
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """Return it as the platform sends it."""
        named = {"taskid": self.task_id, "status": self.status, "content": self.content}
        given = {name: value for name, value in named.items() if value is not None}
        return urlencode({"mobile": self.mobile, "receivetime": self.at} | given | self.extra).encode()


def plain_send(number: int) -> dict[str, Any]:
    """Return a send with neither template nor reference."""
    sent_at = _BEGUN + timedelta(seconds=number)
    return {"task_id": f"plain-{number}", "mobile": f"1390000{number:04d}", "sent_at": sent_at.isoformat()}


def awkward_sends() -> list[dict[str, Any]]:
    """Return a send for each odd task id, each with an odd template and reference, and some of odd times."""
    odd = [
        {
            "task_id": task_id,
            "mobile": MOBILE,
            "template_id": TEMPLATES[place % len(TEMPLATES)],
            "reference": REFERENCES[place % len(REFERENCES)],
            "sent_at": f"2026-11-20T09:59:{place:02d}.{place * 7:03d}+08:00",
        }
        for place, task_id in enumerate(TASK_IDS)
    ]
    return [
        *odd,
        {"task_id": "old", "mobile": MOBILE, "sent_at": "2000-01-02T00:00:00.001Z"},
        {"task_id": "no time", "mobile": MOBILE},
        {"task_id": "fits a masked number", "mobile": "15080921091", "sent_at": "2026-11-20T09:59:00+08:00"},
        {
            "mobile": MOBILE,
            "reference": "refused",
            "sent_at": "2026-11-20T09:58:00+08:00",
            "return_status": "0",
            "message": '=余额不足, "0012"',
        },
    ]


# Each list is one call, whose messages have ids in the order of their task ids.
PLAIN_SENDS = [plain_send(number) for number in range(_PLAIN)]
AWKWARD_SENDS = awkward_sends()
MORE_PLAIN_SENDS = [plain_send(number) for number in range(_PLAIN, 2 * _PLAIN)]
SENDS = [*PLAIN_SENDS, *AWKWARD_SENDS, *MORE_PLAIN_SENDS]
RECEIPTS = [
    *(Push(task_id, status="1" if place % 3 else "0") for place, task_id in enumerate(TASK_IDS)),
    *(Push(task_id, status="1") for task_id in PUSHED_TASK_IDS),
    *(Push(f"plain-{number}", f"1390000{number:04d}", status="1") for number in range(60)),
    Push("old", status="DELIVRD", at="2000-01-02 09:00:00"),
    Push("fits a masked number", MASKED, status="1"),
    Push("0000070000000", status="1", at="2026-11-20 10:00:06", extra={"spid": "0012", "note": "=1+1"}),
    Push("nobody recorded it", "13800138000", status="007"),
    Push("masked and of nobody", "1380013****", status="1"),
]
REPLIES = [
    *(Push((TASK_IDS + PUSHED_TASK_IDS)[place], content=content) for place, content in enumerate(CONTENTS)),
    *(Push(f"plain-{number}", f"1390000{number:04d}", content="TD") for number in range(110)),
    Push(None, content="without a task"),
    Push("nobody replied to it", "13800138001", content="0000000000000000001", extra={"spid": "0013"}),
]
