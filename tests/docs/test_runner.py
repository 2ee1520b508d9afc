"""The runner of pages, on pages made for it: what it does with each kind of block, and what it finds wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.output import is_shown
from tests.docs.run import Run, Shared, run_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST_PUSH = """\
# A push

```sh
make serve
```

In another terminal:

```sh
export PATH="$PWD/.venv/bin:$PATH"
curl -i "$(receiver push-url)" --data-urlencode mobile=15080921090 -d taskid=3313746 -d status=1 \\
    --data-urlencode 'receivetime=2026-11-23 09:14:03'
```

```text
HTTP/1.1 200 OK
…
X-Push-Outcome: accepted
…
ok
```

- With a key:

  ```sh
  export KEY=$(receiver keys create me --scope read)
  ```

Then:

```python
# ask.py
import os, urllib.request
request = urllib.request.Request("http://127.0.0.1:8000/api/v1/messages")
request.add_header("Authorization", "Bearer " + os.environ["KEY"])
print(urllib.request.urlopen(request).read().decode())
```

```sh
python3 ask.py
```

```text
{"items": [{"id": "…", "task_id": "3313746", …
…
}
```

<!-- not run: needs root -->
```sh
systemctl start receiver
```

```text
nothing
```

<!-- run by: tests/docs/test_runner.py -->
```dockerfile
FROM scratch
```
"""


@pytest.fixture
def run(tmp_path: Path, shared: Shared) -> Callable[[str], Run]:
    """Run a page of this text."""

    def run(text: str) -> Run:
        page = tmp_path / "page.md"
        page.write_text(text)
        return run_page(page, tmp_path / "run", shared)

    return run


def test_page_is_followed_from_top_to_bottom(run: Callable[[str], Run]) -> None:
    came = run(FIRST_PUSH)
    assert came.failures == []
    assert came.ran == 7
    assert came.not_run == [
        "line 50: not run: needs root",
        "line 54: not run: needs root",
        "line 59: run by: tests/docs/test_runner.py",
    ]


def test_page_has_the_server_that_it_sets_and_a_platform_that_answers_sends(run: Callable[[str], Run]) -> None:
    came = run(
        """\
<!-- server: these settings -->
```ini
RECEIVER_CONSOLE_NAME=Our texts
RECEIVER_SEND_PROXY_BIND=127.0.0.1:8002
```

```sh
curl -d appId=2RYN7CQHL1M00000 -d appKey=WVNA4A000000 -d phone=15080921090 -d templateId=540 -d variables=1234 \\
    http://127.0.0.1:8002/smsApi/verifyCode
sleep 1
receiver lookup 15080921090 &
wait
```

```text
{"returnStatus":"1 ",…"taskId":"3313746"…}…
…
…delivered…
…
```
""",
    )
    assert came.failures == []


def test_page_about_postgresql_asks_the_views_by_the_role_of_reports(run: Callable[[str], Run]) -> None:
    came = run(
        """\
<!-- server: postgresql -->

```sql
SELECT count(*) FROM reporting.messages;
```

```sh
psql -tA -c "SELECT rolname LIKE 'docs_%' FROM pg_roles WHERE rolname = current_user"
receiver db current
```

```text
t
…
```

```sql
SELECT * FROM public.messages;
```
"""
    )
    assert [fault.partition(":")[0] for fault in came.failures] == ["line 17"]
    assert "permission denied" in came.failures[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```sh\ntrue\nfalse\ntrue\n```\n", "line 1: fails in its line 2: false"),
        ("```sh\nexport KEY=$(receiver keys create)\n```\n", "line 1: fails in its line 1: export KEY"),
        ("```sh\nif true; then\n```\n", "line 1: "),
        ("```sh\nexit 0\n```\n", "line 1: ends the shell"),
        ("```sh\nmake nothing\n```\n", "line 1: fails in its line 1: make nothing"),
        ("```sh\ncurl http://127.0.0.1:8000/api/v1/nothing\n```\n", "line 1: an answer of 400 or more"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "line 1: shows:\none\nand not:\ntwo"),
        ("```ini\nRECEIVER_BIND=nowhere\n```\n", "line 1: RECEIVER_BIND: "),
        ("```ini\nRECEIVER_BINT=127.0.0.1:8000\n```\n", "line 1: RECEIVER_BINT: unknown setting"),
        ("```ini\nBIND=127.0.0.1:8000\n```\n", "line 1: BIND: no setting"),
        ("```json\n{]\n```\n", "line 1: Expecting"),
        ("```yaml\na: [\n```\n", "line 1: while parsing"),
        ("```python\nprint(1)\n```\n", "line 1: its first line is no comment"),
        (
            "```sql\nSELECT count(*) FROM reporting.nothing\n```\n",
            'line 1: relation "reporting.nothing" does not exist',
        ),
        ("```sh\ncurl -fsS http://127.0.0.1:8000/nothing\n```\n", "line 1: fails in its line 1: curl"),
        ("```nginx\nserver {\n```\n", "line 1: its braces do not pair"),
        ("```csv\na,b\n1\n```\n", "line 1: its rows"),
        (
            "<!-- server: these settings -->\n```ini\nRECEIVER_TIMEZONE=Nowhere\n```\n\n```sh\nreceiver status\n```\n",
            "line 2: RECEIVER_TIMEZONE",
        ),
        # its form
        ("```\ntrue\n```\n", "line 1: language ''"),
        ("    true\n", "line 1: indented code"),
        ("```text\nalone\n```\n", "line 1: text is the output"),
        ("<!-- not run: needs root -->\n\nA word.\n", "line 3: <!-- not run: needs root --> has no block"),
        ("<!-- not run: needs root -->\n", "line 0: <!-- not run: needs root --> has no block"),
        ("<!-- run by: tests/nothing.py -->\n```sh\ntrue\n```\n", "line 1: run by: tests/nothing.py does not exist"),
        ("<!-- server: of mine -->\n", "line 1: server: of mine"),
        ("<p>HTML</p>\n", "line 1: HTML: <p>"),
    ],
)
def test_runner_finds(run: Callable[[str], Run], text: str, fault: str) -> None:
    failures = run(text).failures
    assert failures
    assert failures[0].startswith(fault)


@pytest.mark.parametrize(
    ("shown", "output", "alike"),
    [
        ("ok", "ok\n", True),
        ("ok", "not ok", False),
        ("a … d", "a b c d", True),
        ("a … d", "a b\nc d", False),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nd", True),
        ("a\n…", "a\nb", True),
        ("…\nb", "a\nb", True),
        ("a\nb", "a\nc\nb", False),
        ('{"a": 1,\n "b": 2}', '{"a":1,"b":2}', True),
        ("a b", "ab", False),
        ("HTTP/1.1 200 OK\n…\nok", "HTTP/1.1 200 OK\r\nDate: x\r\n\r\nok", True),
    ],
)
def test_output_is_what_is_shown(shown: str, output: str, alike: bool) -> None:
    assert is_shown(shown, output) is alike
