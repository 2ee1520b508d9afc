"""What a client by openapi-generator does: lists to their ends, files as bytes and as text."""

import json
import os
from pathlib import Path

import sms

configuration = sms.Configuration(host=os.environ["SMS_URL"], access_token=os.environ["SMS_KEY"])
client = sms.ApiClient(configuration)


def read_all(operation):
    items, more = [], {}
    while True:
        page = operation(limit=100, **more)
        items += [json.loads(item.to_json()) for item in page.items]
        if not page.has_more:
            return items
        more = {"cursor": page.next_cursor}


found = {
    "messages": read_all(sms.MessagesApi(client).list_messages),
    "receipts": read_all(sms.ReceiptsApi(client).list_receipts),
    "replies": read_all(sms.RepliesApi(client).list_replies),
    "events": read_all(sms.EventsApi(client).list_events),
}
exports = sms.ExportsApi(client)
Path("messages.parquet").write_bytes(exports.export_messages_parquet())
Path("messages.xlsx").write_bytes(exports.export_messages_xlsx())
print(json.dumps(found))
