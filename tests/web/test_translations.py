"""Both languages are whole: every text has its Chinese, and no page shows English where Chinese was asked for."""

from __future__ import annotations

import ast
import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pyotp
import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from flask import template_rendered

from receiver.app import create_app
from receiver.auth import changes
from receiver.auth.api_keys import Scope
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.core import UNREAD, Fault, FieldFault, Push, PushFault, PushFlag, new_id, read_faults, write_faults
from receiver.net.self_test import SelfTestAnswer
from receiver.translations import CATALOGUES, DIRECTORY
from receiver.web import console
from receiver.web.console import status as now
from receiver.web.console.error_texts import (
    FAULTS,
    FLAGS,
    PUSH_FAULTS,
    delivery_words,
    fault_words,
    flag_words,
    why_unread,
)
from receiver.web.console.filters import duration
from receiver.webhooks import changes as endpoint_changes
from receiver.webhooks import endpoints
from receiver.webhooks.endpoints import NewEndpoint, PayloadFormat
from tests.harness.factories import make_send
from tests.payloads import CASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from babel.messages.catalog import Catalog, Message
    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

CONSOLE = Path(console.__file__).parent
CATALOGUE = DIRECTORY / CATALOGUES["zh-CN"] / "LC_MESSAGES"

Key = tuple[str | None, str]  # context and id


def _catalogue() -> Catalog:
    with (CATALOGUE / "messages.po").open("rb") as file:
        return read_po(file)


def _by_key(catalogue: Catalog) -> dict[Key, Message]:
    return {(_context(message), _first(message.id)): message for message in catalogue if message.id}


def _context(message: Message) -> str | None:
    context: Any = message.context
    return context.decode() if isinstance(context, bytes) else context  # Babel reads a compiled one as bytes


def _first(texts: Any) -> str:
    return texts if isinstance(texts, str) else texts[0]


def _texts(texts: Any) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


MESSAGES = _by_key(_catalogue())
# Placeholders, commands, marks and settings, and the space around a text.
PUT_IN = (r"%\(\w+\)[a-z]|%%", r"\{\w*\}", r"`[^`]+`", r"</?\w[^>]*>", r"\bRECEIVER_\w+", r"^\s+", r"\s+$")


# --- The catalogue ------------------------------------------------------------------------------------


def test_every_text_of_the_sources_is_in_the_catalogue_and_nothing_else() -> None:
    with (DIRECTORY / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]
    found = extract_from_dir(DIRECTORY.parent, methods, options, DEFAULT_KEYWORDS | {"lazy_gettext": None})
    wanted = {(context, _first(texts)) for _file, _line, texts, _comments, context in found}
    assert len(wanted) > 300
    assert wanted - MESSAGES.keys() == set(), "see `make translations`"
    assert MESSAGES.keys() - wanted == set(), "see `make translations`"
    assert not _catalogue().obsolete


@pytest.mark.parametrize("key", MESSAGES, ids=lambda key: key[1][:40])
def test_text_is_translated_with_all_that_is_put_into_it(key: Key) -> None:
    message = MESSAGES[key]
    assert not message.fuzzy
    texts = _texts(message.id)
    for translated in _texts(message.string):
        assert translated, "not translated"
        assert translated != message.id
        for pattern in (
            r"%\(\w+\)[a-z]|%%",
            r"\{\w*\}",
            r"`[^`]+`",
            r"</?\w[^>]*>",
            r"\bRECEIVER_\w+",
            r"^\s+",
            r"\s+$",
        ):
            assert Counter(re.findall(pattern, translated)) == Counter(re.findall(pattern, texts[-1])), pattern
        assert not re.search(r"[\u4e00-\u9fff] ?[,;:?!]|[\u4e00-\u9fff]\.(?!\w)", translated), "half-width punctuation"
        if re.search(r"[.:?]$", texts[-1]):
            assert translated[-1] in "。：？", "its last mark is gone"


def test_what_is_compiled_is_what_is_written() -> None:
    with (CATALOGUE / "messages.mo").open("rb") as file:
        compiled = _by_key(read_mo(file))
    assert {key: _texts(message.string) for key, message in compiled.items()} == {
        key: _texts(message.string) for key, message in MESSAGES.items()
    }


# --- The pages ----------------------------------------------------------------------------------------

# English is a word with a capital, as labels have it, or two words in a row; another Latin word is the name of a field.
# What is named here, and commands, stay as they are on Chinese pages, outside of elements that show data.
ENGLISH = re.compile(r"\b[A-Z][a-z]+\b|\b[a-z]{2,} [a-z]{2,}\b", re.ASCII)
COMMAND = re.compile(r"\breceiver [\w -]+", re.ASCII)
NAMES = {
    "App",
    "Authenticator",
    "Google",
    "Microsoft",
    "English",
    "Excel",
    "Ctrl",
    "Content",
    "Type",
    "Standard",
    "Webhook",
    "Webhooks",
}
SHOWN_ATTRIBUTES = {"aria-label", "placeholder", "alt", "data-announce", "data-copied", "data-failed", "content"}
VOID = {"meta", "link", "input", "br", "img", "hr"}
# Included or imported by pages, so that no signal tells of them.
PARTS = {
    *("base.html", "macros.html", "tail_rows.html", "answer.html", "case.html", "finding.html", "handover.html"),
    "row_look_up.html",
    "look_up_form.html",
}


class _Shown(HTMLParser):
    """The words that a page shows, without data: `code`, `pre`, `bdi`, pictures, `.mono`."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag != "meta":
            self.texts += [value for name, value in given.items() if value and name in SHOWN_ATTRIBUTES]
        if tag not in VOID:
            data = tag in {"code", "pre", "bdi", "svg", "script"} or "mono" in (given.get("class") or "").split()
            self._inside.append((tag, data))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not any(is_data for _tag, is_data in self._inside):
            self.texts.append(data)


def english(page: str) -> list[str]:
    """Every text of a page that is English, or has some in it."""
    shown = _Shown()
    shown.feed(page)
    shown.close()
    return [text.strip() for text in shown.texts if set(ENGLISH.findall(COMMAND.sub("", text))) - NAMES]


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    """One kind of database is enough for words."""
    return sqlite_database_url


@pytest.fixture
def app(make_runtime: Callable[..., Runtime]) -> Flask:
    """The application with something of every kind on its pages."""
    runtime = make_runtime()
    _fill(runtime)
    return create_app(runtime)


def _fill(runtime: Runtime) -> None:
    for name, role in (("ada", Role.ADMIN), ("sue", Role.SUPPORT)):
        password_hash = hash_password("correct horse", name=name)
        runtime.database.write(
            lambda connection, name=name, role=role, password_hash=password_hash: changes.create_user(  # type: ignore[misc]
                connection, name=name, role=role, now=runtime.now(), password_hash=password_hash
            )
        )
    runtime.database.write(
        lambda connection: changes.create_key(
            connection, name="partner", scopes=[Scope.READ], accounts=None, now=runtime.now(), expires_at=None
        )
    )
    new = NewEndpoint(name="shop", url="https://192.0.2.1/", format=PayloadFormat.RAW, pii=True)
    runtime.database.write(lambda connection: endpoint_changes.create_endpoint(connection, new, now=runtime.now()))
    shop = runtime.ask(lambda connection: endpoints.get_endpoint(connection, "shop"))
    runtime.database.write(
        lambda connection: endpoint_changes.pause_endpoint(connection, shop, because="by user:ada", now=runtime.now())
    )
    present = runtime.now().replace(microsecond=0)
    ages = {"1": 30, "2": 150, "3": 3 * 3600, "4": 80 * 3600, "5": 120 * 3600, "6": 60, "7": 61, "8": 62, "9": 63}
    for task, age in ages.items():
        refused = task == "9"
        send = make_send(
            task_id=None if refused else task,
            mobile=f"1508092109{task}",
            sent_at=present - timedelta(seconds=age),
            template_id="540",
            error_message="余额不足" if refused else None,
        )
        runtime.recorder.record([send])
    moment = f"{present.astimezone(runtime.settings.timezone):%Y-%m-%d %H:%M:%S}"

    def push(**fields: str) -> None:
        _push(runtime, urlencode({"receivetime": moment} | fields).encode())

    push(mobile="15080921096", taskid="6", status="1")
    push(mobile="15080921097", taskid="7", status="0")
    push(mobile="15080921098", taskid="8", status="odd")
    push(mobile="15080921093", taskid="3", status="1")
    push(mobile="15080921093", taskid="3", status="0")
    push(mobile="15080921096", taskid="6", content="退订")
    push(mobile="15080921096", taskid="6", content="不要再发了，退订")
    push(mobile="15080921099", taskid="unmatched", status="1")
    _push(runtime, urlencode({"mobile": "15080921096", "taskid": "6", "content": "收到", "receivetime": f"{moment}.5"},
                             encoding="gb18030").encode())  # fmt: skip
    for wrong in (
        b"", b"mobile=1&taskid=&status=1", b"mobile=15080921092&taskid=a&taskid=b&status=1&receivetime=now",
        b"mobile=15080921092&taskid=%00&status=" + b"1" * 65 + b"&receivetime=2026-02-30+00:00:00",
        b"mobile=15080921092&taskid=%ff&content=%80&receivetime=0001-01-01+00:00:00&x=1&x=2",
    ):  # fmt: skip
        _push(runtime, wrong)


def _push(runtime: Runtime, body: bytes) -> None:
    push = Push(
        id=new_id(), account="default", endpoint=None, method="POST", query=b"", body=body,
        content_type="application/x-www-form-urlencoded", remote_addr="203.0.113.7", received_at=runtime.now(),
        reading=UNREAD,
    )  # fmt: skip
    runtime.batch_writer.enqueue(runtime.admission.read_again(push)).result(timeout=20)


class _Visitor:
    """Somebody who reads Chinese; notes every page's English."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self.english: dict[str, list[str]] = {}
        self.page = ""

    def get(self, path: str, status: int = 200) -> str:
        return self._note(path, status, self._client.get(path, headers={"Accept-Language": "zh-CN"}))

    def post(self, path: str, status: int = 200, **form: str) -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.page)
        assert found is not None
        answer = self._client.post(
            path, data=form | {"csrf_token": found[1]}, headers={"Accept-Language": "zh-CN"}, follow_redirects=True
        )
        return self._note(f"POST {path}", status, answer)

    def _note(self, path: str, status: int, answer: TestResponse) -> str:
        text = answer.get_data(as_text=True)
        assert answer.status_code == status, path
        assert '<html lang="zh-CN">' in text or "<html" not in text
        if left := english(text):
            self.english[path] = left
        if "<html" in text:
            self.page = text
        return text


@pytest.fixture
def rendered(app: Flask) -> Iterator[set[str]]:
    """The names of the templates that were rendered."""
    names: set[str] = set()

    def note(_sender: Flask, template: Any, **_rest: Any) -> None:
        names.add(template.name.removeprefix("console/"))

    with template_rendered.connected_to(note, app):
        yield names


def test_no_page_shows_english_to_who_reads_chinese(
    app: Flask, rendered: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = SelfTestAnswer(status=200, location=None, push_id="1", outcome="accepted")
    monkeypatch.setattr(now, "push_self_test", lambda *_, **__: kept)  # nobody listens there
    visitor = _Visitor(app.test_client())
    visitor.get("/console/login")
    visitor.post("/console/login", 401, name="ada", password="wrong")
    second = visitor.post("/console/login", name="ada", password="correct horse")
    secret = re.search(r'<code id="key">(\w+)</code>', second)
    assert secret is not None
    visitor.post("/console/second-factor", 401, code="000000x")
    visitor.post("/console/second-factor", code=pyotp.TOTP(secret[1]).now())
    for wanted in [f"1508092109{last}" for last in range(10)] + ["13900000000", "unmatched", "%ff"]:
        found = visitor.post("/console/look-up", wanted=wanted, period="10m")
        if again := re.search(r'hx-get="(/console/look-up/\w+/answer[^"]*)"', found):
            visitor.get(again[1].replace("&amp;", "&"))
    visitor.post("/console/look-up", 422, wanted="")
    visitor.post("/console/opt-outs/export", 422, reason="")
    visitor.post("/console/look-up", 422, wanted="1" * 300)
    for path in ("", "banner", "status", "incidents", "docs", "docs/reference/alarms", "setup",
                 "account", "audit", "access", "keys", "users", "webhooks",
                 "webhooks/shop", "webhooks/shop/dead", "advice", "advice?language=en",
                 "reports", "reports?compare=1", "exports", "messages", "cases", "replies", "opt-outs", "pushes",
                 "tail", "test-message", "test-message/1", "opt-outs?opt_out_review=true",
                 "pushes?outcome=quarantined"):  # fmt: skip
        visitor.get(f"/console/{path}")
    for path in ("messages?sent_from=x&status=nonsense", "messages?late=nonsense", f"messages?task_id={'1' * 65}",
                 "messages?cursor=nonsense", "replies?received_to=x", "pushes?outcome=nonsense",
                 "messages?account=nonsense", "reports?from=x&to=1960-01-01",
                 "exports/messages?nonsense=1"):  # fmt: skip
        visitor.get(f"/console/{path}", 422)
    for path in ("nowhere", "pushes/nonsense", "messages/999999", "look-up/nonsense", "exports/nonsense.csv"):
        visitor.get(f"/console/{path}", 404)
    for name in ("messages", "pushes"):
        for path in set(re.findall(rf'href="(/console/{name}/[0-9a-f-]+)"', visitor.get(f"/console/{name}"))):
            visitor.get(path)
    visitor.post("/console/users", 422, name="?")
    visitor.post("/console/users", 422, name="ann", role="support", password="short")
    visitor.post("/console/keys", 422, name="")
    visitor.post("/console/keys", name="user", scope="read")
    for wrong in ({"name": "?", "url": "http://10.0.0.1/"}, {"name": "shop", "url": "ftp://x"}):
        visitor.post("/console/webhooks", 422, format="webhooks", not_delivered_after_seconds="0", **wrong)
    visitor.post(
        "/console/webhooks", 422, name="a", url="http://a@b/", format="webhooks", event="message.not_delivered"
    )
    for action in ("rotate", "resume", "pause", "replay", "remove"):
        visitor.post("/console/webhooks/change", name="shop", action=action)
        visitor.post("/console/webhooks/change", name="shop", action=action, sure="yes")
    visitor.post("/console/advice", language="zh-CN", delivered="")
    visitor.post("/console/account", 422, present="wrong", new="wrong")
    visitor.post("/console/setup/self-test")
    visitor.post("/console/test-message", 422, mobile="1")
    visitor.post("/console/users/sue", action="end_sessions")
    visitor.post("/console/users/sue", action="disable")
    visitor.post("/console/users/sue", action="reset_totp")
    visitor.post("/console/keys/revoke", name="user")
    visitor.post("/console/pushes/seen")
    # What the team is shown of the other language is English as it should be.
    assert visitor.english.pop("/console/advice?language=en")
    # They are of the documentation, whose translation is held elsewhere.
    visitor.english.pop("/console/docs", None)
    visitor.english.pop("/console/docs/reference/alarms", None)
    assert visitor.english == {}
    every = {path.name for path in (CONSOLE / "templates/console").glob("*.html")}
    assert every - rendered == PARTS


def test_english_is_noticed() -> None:
    page = '<p>短信 <bdi>Hello</bdi> <code>x</code></p><p title="y" aria-label="All times">CSV</p><b>No entries.</b>'
    assert english(page) == ["All times", "No entries."]


def _codes(base: type[Fault]) -> set[Fault]:
    return {member for enum in base.__subclasses__() for member in enum}


def test_every_fault_and_flag_has_its_text_in_both_languages(app: Flask) -> None:
    assert FAULTS.keys() == _codes(Fault)
    assert PUSH_FAULTS.keys() == set(PushFault)
    assert FLAGS.keys() == set(PushFlag)
    every = [*FAULTS.values(), *PUSH_FAULTS.values(), *FLAGS.values()]
    told = {}
    for language in ("en", "zh-CN"):
        with app.test_request_context("/console/", headers={"Accept-Language": language}):
            told[language] = [str(text) for text in every]
    assert not any(re.search(r"[\u4e00-\u9fff]", text) for text in told["en"])
    assert all(re.search(r"[\u4e00-\u9fff]", text) for text in told["zh-CN"])


def test_faults_of_pushes_are_told_by_their_codes(app: Flask) -> None:
    errors = {case.error for case in CASES if case.error}
    assert len(errors) > 20
    read = [found for error in errors for found in read_faults(error)]
    assert {found.fault for found in read if isinstance(found, FieldFault)} == set(PushFault) - {
        PushFault.REFUSED_BY_DATABASE
    }
    with app.test_request_context("/console/", headers={"Accept-Language": "zh-CN"}):
        assert why_unread("mobile: missing; taskid: over 64 characters; x: of an older version") == (
            "mobile: 缺失; taskid: 过长; x: of an older version"
        )
        assert flag_words("of a newer version") == "of a newer version"
        assert delivery_words("answered with HTTP status 410") == "应答的 HTTP 状态码为 410"
        assert delivery_words("of a newer version") == "of a newer version"
        assert delivery_words(None) == ""


@pytest.mark.parametrize("error", sorted({case.error for case in CASES} | {"", "x", "not read yet", "a: b: c"}))
def test_faults_of_a_push_are_read_as_they_were_written(error: str) -> None:
    assert write_faults(read_faults(error)) == error


def test_english_of_a_fault_is_no_code() -> None:
    assert fault_words("Not a phone number.", default="as it is") == "as it is"


def test_console_compares_with_no_english_of_a_fault() -> None:
    """Codes are compared: no text of a fault is a key, a side of a comparison, or an argument of a search."""
    texts = {str(fault) for fault in [*_codes(Fault), *PushFault] if " " in fault}
    for path in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            sides: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                sides = node.keys
            elif isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("startswith", "match", "search")):
                sides = list(node.args)
            compared = {side.value for side in sides if isinstance(side, ast.Constant)}
            assert compared & texts == set(), path.name


@pytest.mark.parametrize(
    ("seconds", "chinese", "in_english"),
    [
        (1, "1秒", "1 second"),
        (119, "119秒", "119 seconds"),
        (180, "3分钟", "3 minutes"),
        (7200, "2小时", "2 hours"),
        (5 * 86400, "5天", "5 days"),
    ],
)
def test_lengths_of_time_are_written_as_each_language_does(
    app: Flask, seconds: int, chinese: str, in_english: str
) -> None:
    for tag, written in (("zh-CN", chinese), ("en", in_english)):
        with app.test_request_context("/console/", headers={"Accept-Language": tag}):
            assert duration(seconds) == written
