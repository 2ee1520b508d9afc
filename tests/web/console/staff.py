"""Somebody at the staff pages, and a page as they see it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from receiver.audit import list_audit
from receiver.auth import changes, users
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.core import first_id_of
from receiver.db import migrate
from receiver.messages import recording
from receiver.runtime import Runtime
from tests.conftest import make_settings
from tests.harness.factories import NOON, make_push
from tests.harness.journal import save_pushes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from receiver.auth.users import User
    from receiver.core import Push, SentMessage

NUMBER = "15080921090"
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PASSWORD = "correct horse battery"
_HASHES: dict[str, str] = {}  # a hash costs 30 ms
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')

# For what the database has no part in: its part is tested on both, where it is written.
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Tag = tuple[str, tuple[str, ...]]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.by_id: dict[str, dict[str, str | None]] = {}
        self._texts: dict[str, list[str]] = {}
        self._all: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        given = dict(attrs)
        self.tags.append((tag, given))
        if (name := given.get("id")) is not None:
            assert name not in self.by_id, f"the id {name} stands twice"
            self.by_id[name] = given
            self._texts[name] = []
        if tag not in _VOID:
            self._open.append((tag, name))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that ends at once."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        while self._open:
            if self._open.pop()[0] == tag:
                return

    def handle_data(self, data: str) -> None:
        """Note text, for all that it stands in."""
        self._all.append(data)
        for _, name in self._open:
            if name is not None:
                self._texts[name].append(data)

    @property
    def text(self) -> str:
        """All text."""
        return " ".join("".join(self._all).split())

    def at(self, name: str) -> str:
        """The text of the element of an id, spaces reduced."""
        return " ".join("".join(self._texts[name]).split())

    @property
    def shape(self) -> list[Tag]:
        """Elements and the names of their attributes, without those that name an unseen character."""
        return [
            (tag, tuple(sorted(given)))
            for tag, given in self.tags
            if not (tag == "span" and given.get("class") == "unseen")
        ]


class Staff:
    """A browser of somebody who has logged in, or of nobody."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client: FlaskClient = app.test_client()
        self._csrf: str | None = None

    @property
    def token(self) -> str | None:
        """The session's token, as the cookie holds it."""
        with self.client.session_transaction("/console/") as kept:
            found: str | None = kept.get("token")
            return found

    @token.setter
    def token(self, token: str) -> None:
        with self.client.session_transaction("/console/") as kept:
            kept["token"] = token
        self._csrf = None

    @property
    def csrf(self) -> str:
        """What its forms carry."""
        if self._csrf is None:
            found = _CSRF.search(self.client.get("/console/login").text)
            assert found is not None
            self._csrf = found[1]
        return self._csrf

    def get(self, path: str, **more: Any) -> TestResponse:
        """Open a page."""
        return self.client.get(f"/console{path}", **more)

    def page(self, path: str, *, status: int = 200, **more: Any) -> Page:
        """Open a page that has to be there."""
        answer = self.get(path, **more)
        assert answer.status_code == status, (path, answer.status_code)
        return Page(answer.text)

    def post(self, path: str, fields: dict[str, Any] | None = None, **more: Any) -> TestResponse:
        """Send a form of a page."""
        answer = self.client.post(f"/console{path}", data={"csrf_token": self.csrf, **(fields or {})}, **more)
        if any("receiver_console" in cookie for cookie in answer.headers.getlist("Set-Cookie")):
            self._csrf = None
        return answer

    def surely(self, path: str, fields: dict[str, Any] | None = None) -> TestResponse:
        """Send a form of a page, and say yes where it asks first; nothing is asked twice."""
        asked = self.post(path, fields)
        assert asked.status_code == 200, (path, asked.status_code)
        given = [attributes for tag, attributes in Page(asked.text).tags if tag == "input"]
        assert {"type": "hidden", "name": "sure", "value": "yes"} in given
        for name, value in (fields or {}).items():  # the question carries the form on
            assert {"type": "hidden", "name": name, "value": value} in given, name
        return self.post(path, {**(fields or {}), "sure": "yes"})

    def look_up(self, wanted: str, period: str = "10m", **more: Any) -> Page:
        """Look something up, as far as the answer."""
        answer = self.post("/look-up", {"wanted": wanted, "period": period})
        assert answer.status_code == 303, answer.status_code
        found = self.client.get(answer.headers["Location"], **more)
        assert found.status_code == 200
        return Page(found.text)

    @property
    def logged_in(self) -> bool:
        """Whether this browser's cookie opens a page for all staff."""
        return self.get("/account").status_code == 200


@contextmanager
def plain_runtime(directory: Path) -> Iterator[Runtime]:
    """A runtime on an embedded database, for what no database changes."""
    runtime = Runtime(make_settings(f"sqlite:///{directory / 'receiver.db'}", directory))
    migrate.upgrade(runtime.database)
    runtime.start()
    runtime.availability.await_known(60)
    yield runtime
    runtime.stop()


def create(runtime: Runtime, name: str, role: str, *, password: str = PASSWORD) -> User:
    """Make a user with that password."""
    if password not in _HASHES:
        _HASHES[password] = hash_password(password, name="nobody")
    return runtime.database.write(
        lambda c: changes.create_user(c, name=name, role=Role(role), now=runtime.now(), password_hash=_HASHES[password])
    )


def log_in(app: Flask, runtime: Runtime, role: str, *, name: str | None = None, confirmed: bool = True) -> Staff:
    """Somebody of that role who has logged in, wholly or without the second factor."""
    name = name or role
    user = runtime.ask(lambda c: users.find_user(c, name)) or create(runtime, name, role)
    token = runtime.database.write(
        lambda c: users.begin_session(
            c, user.id, confirmed=confirmed, address="127.0.0.1", now=runtime.now(), lasts=timedelta(hours=12)
        )
    )
    staff = Staff(app)
    staff.token = token
    return staff


# --- What comes and is sent, and what is read -----------------------------------------------------------


def keep(runtime: Runtime, *pushes: Push) -> None:
    save_pushes(runtime.database, pushes)


def at(moment: datetime, **changes: Any) -> Push:
    """A push of that moment, which says the same of its receivetime."""
    push = make_push(second=int((moment - NOON).total_seconds()), **changes)
    chance = push.id.int & (1 << 61) - 1
    return replace(push, id=UUID(int=first_id_of(moment).int | chance), received_at=moment)


def record(runtime: Runtime, *sends: SentMessage) -> None:
    runtime.database.write(lambda c: recording.record_sent(c, sends, recorded_at=runtime.now()))


def audit(runtime: Runtime) -> list[tuple[str, str, Any]]:
    """Who, what, more; oldest first, without log-ins."""
    lines = runtime.ask(lambda c: list_audit(c, 100))[::-1]
    return [(line["actor"], line["action"], line["detail"]) for line in lines]


def sentences(page: Page) -> list[str]:
    return [page.at(name) for name in page.by_id if name == "answer" or re.fullmatch(r"answer-\d+", name)]


def table_of(page: Page, name: str) -> list[list[str]]:
    html = page.html.partition(f'<table id="table-{name}">')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in html.split("<tr>")[1:]]
