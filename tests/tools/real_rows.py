"""What the tools are held against: the API's own answer says what was put in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.tools.rows import CONTENTS, RECEIPTS, REPLIES, SENDS

if TYPE_CHECKING:
    from tests.tools.house import House


def test_api_gives_every_odd_value_as_it_was_put_in(house: House) -> None:
    messages = {item["task_id"]: item for item in house.rows("messages") if item["task_id"]}
    for send in SENDS:
        if "task_id" in send:
            message = messages[send["task_id"]]
            assert {name: message[name] for name in ("mobile", "template_id", "reference")} == {
                name: send.get(name) for name in ("mobile", "template_id", "reference")
            }
    receipts, replies = house.rows("receipts"), house.rows("replies")
    # Beside what other tests have pushed.
    pushed = Counter((push.task_id, push.status) for push in RECEIPTS)
    assert pushed <= Counter((item["task_id"], item["vendor_status"]) for item in receipts)
    said = Counter((push.task_id, push.content) for push in REPLIES)
    assert said <= Counter((item["task_id"], item["content"]) for item in replies)
    answered = [messages[push.task_id]["reply_count"] for push in REPLIES[: len(CONTENTS)] if push.task_id]
    assert answered == [1] * len(CONTENTS)
    assert {item["id"] for item in receipts} & {item["id"] for item in replies}
