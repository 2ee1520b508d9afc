"""What a client by openapi-python-client does: lists to their ends, one record, a file as bytes."""

import json
import os
from pathlib import Path

from sms import AuthenticatedClient
from sms.api.events import list_events
from sms.api.exports import export_messages_parquet
from sms.api.messages import list_messages, record_messages
from sms.api.receipts import list_receipts
from sms.api.replies import list_replies
from sms.models import Send

client = AuthenticatedClient(
    base_url=os.environ["SMS_URL"], token=os.environ["SMS_KEY"], raise_on_unexpected_status=True
)


def read_all(operation):
    items, more = [], {}
    while True:
        page = operation.sync(client=client, limit=100, **more)
        items += [item.to_dict() for item in page.items]
        if not page.has_more:
            return items
        more = {"cursor": page.next_cursor}


found = {
    "messages": read_all(list_messages),
    "receipts": read_all(list_receipts),
    "replies": read_all(list_replies),
    "events": read_all(list_events),
}
send = Send(task_id="0000070000001", mobile="15080921090", sent_at="2026-11-20T08:00:00+08:00")
recorded = record_messages.sync(client=client, body=send)
found["recorded"] = [recorded.id]
answer = export_messages_parquet.sync_detailed(client=client)
Path("messages.parquet").write_bytes(answer.content)
assert answer.parsed.payload.read() == answer.content
print(json.dumps(found))
