"""Values for tests, each usual unless said otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from receiver.core import Push, SentMessage, new_id
from receiver.platform.push_parser import PushReader

READER = PushReader(zone=ZoneInfo("Asia/Shanghai"))
NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # in Shanghai


def make_push(
    *,
    account: str = "default",
    mobile: str = "15080921090",
    task_id: str | None = "3313746",
    status: str | None = "1",
    content: str | None = None,
    second: int = 0,
    body: bytes | None = None,
) -> Push:
    """A push as the gate would admit it; `second` counts from noon."""
    local = (NOON + timedelta(seconds=second)).astimezone(READER.zone)
    fields = {"mobile": mobile, "receivetime": f"{local:%Y-%m-%d %H:%M:%S}"}
    fields |= {"taskid": task_id} if task_id is not None else {}
    fields |= {"content": content} if content is not None else {"status": status or ""}
    raw = urlencode(fields).encode() if body is None else body
    reading, flags = READER.read(body=raw, query=b"", endpoint=None)
    return Push(
        id=new_id(),
        account=account,
        endpoint=None,
        method="POST",
        query=b"",
        body=raw,
        content_type="application/x-www-form-urlencoded",
        remote_addr="127.0.0.1",
        received_at=datetime.now(UTC),
        reading=reading,
        flags=flags,
    )


def make_send(
    *,
    account: str = "default",
    mobile: str = "15080921090",
    task_id: str | None = "3313746",
    template_id: str | None = None,
    reference: str | None = None,
    sent_at: datetime | None = None,
    error_message: str | None = None,
) -> SentMessage:
    """The record of a send."""
    return SentMessage(
        account=account,
        mobile=mobile,
        task_id=task_id,
        template_id=template_id,
        reference=reference,
        sent_at=sent_at,
        error_message=error_message,
    )
