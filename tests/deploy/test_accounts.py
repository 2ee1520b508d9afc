"""deploy/nginx/accounts.conf: two accounts behind one address, each with a database and a receiver of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import psycopg
import pytest

from receiver.auth import changes
from receiver.auth.passwords import hash_password
from receiver.auth.users import Role
from receiver.db.engine import Database
from tests.deploy.test_nginx import FORM, ask, kill
from tests.docs.blocks import DOCS, ROOT, read_page
from tests.harness.leaks import SECRET
from tests.harness.nginx import DEPLOYED, NAME, OTHER_NAME, Nginx
from tests.harness.postgres import PostgresServer
from tests.harness.server import Answer, ServeProcess
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.databases import Databases

OTHER_SECRET = "of-the-other-account-0123456789"
PAGE = DOCS / "explanation/past-one-machine.md"
PASSWORD = "correct horse battery staple"
_CSRF = re.compile(rb'name="csrf_token" value="([^"]+)"')


class Accounts:
    """Two accounts, `default` and `market`, and nginx in front of them."""

    def __init__(self, front: Nginx, default: ServeProcess, market: ServeProcess, database: PostgresServer) -> None:
        self.front, self.default, self.market, self.database = front, default, market, database

    def push(self, host: str, secret: str, task_id: str, *, named: bool = True) -> Answer:
        """Push to one of the names, also as a client that sends no name for TLS."""
        with self.front.connect(name=host if named else NAME) as connection:
            return ask(connection, f"/push/{secret}", FORM % task_id.encode(), host=host)

    def inside(self, host: str, path: str, body: bytes | None = None, *headers: str) -> Answer:
        """Ask the console or the API of one of the names."""
        with self.front.connect(port=self.front.inside_port, name=host) as connection:
            return ask(connection, path, body, *headers, host=host)


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory, postgres_databases: Databases) -> Iterator[Accounts]:
    with PostgresServer(durable=False) as database, postgres_databases.lend() as default_url:

        def receiver(account: str, secret: str, host: str, url: str, *, patient: bool) -> ServeProcess:
            settings = {
                "RECEIVER_PUSH_TOKENS": f"{account}:{secret}",
                "RECEIVER_PUBLIC_URL": f"https://{host}",
                "RECEIVER_TRUSTED_PROXIES": "127.0.0.1",
            }
            place = tmp_path_factory.mktemp(account)
            return ServeProcess(place, url, environment=settings, patient=patient)

        default = receiver("default", SECRET, NAME, default_url, patient=True)
        market_url = database.create_database("market").replace("postgresql://", "postgresql+psycopg://")
        market = receiver("market", OTHER_SECRET, OTHER_NAME, market_url, patient=False)
        market.upgrade()
        with (
            default,
            market,
            Nginx(
                place=tmp_path_factory.mktemp("nginx"),
                receivers=[default.port] * 2,
                other_account=[market.port] * 2,
            ) as front,
        ):
            yield Accounts(front, default, market, database)


def test_commands_of_the_page_make_the_files_choose_by_name(tmp_path: Path) -> None:
    for name in ("conf.d/receiver.conf", "snippets/receiver-push.conf"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(DEPLOYED / Path(name).name, tmp_path / name)
    (block,) = [block for block in read_page(PAGE).blocks if block.language == "sh"]
    commands, reload = block.code.replace("/etc/nginx", str(tmp_path)).split("nginx -t")
    assert reload == " && systemctl reload nginx\n"
    subprocess.run(["sh", "-e", "-c", commands], cwd=ROOT, check=True)
    upstreams = [
        re.findall(r"proxy_pass (\S+);", path.read_text()) for path in sorted(tmp_path.rglob("receiver*.conf"))
    ]
    assert upstreams == [["http://$receivers"] * 3, [], ["http://$receivers"]]


def stored(receiver: ServeProcess) -> set[tuple[str, str]]:
    """Give account and task id of each receipt in a receiver's database."""
    with psycopg.connect(receiver.database_url.replace("+psycopg", "")) as connection:
        return set(
            connection.execute(
                "SELECT m.account, m.task_id FROM receipts r JOIN messages m ON m.id = r.message_id"
            ).fetchall()
        )


@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_push_arrives_in_the_database_of_its_account(accounts: Accounts, named: bool) -> None:
    tasks = {NAME: f"one-{named}", OTHER_NAME: f"two-{named}"}
    for host, secret in ((NAME, SECRET), (OTHER_NAME, OTHER_SECRET)):
        assert accounts.push(host, secret, tasks[host], named=named).status == 200
    await_true(lambda: ("default", tasks[NAME]) in stored(accounts.default))
    await_true(lambda: ("market", tasks[OTHER_NAME]) in stored(accounts.market))
    assert {account for account, _ in stored(accounts.default)} == {"default"}
    assert {account for account, _ in stored(accounts.market)} == {"market"}


def test_unknown_secret_and_secret_of_the_other_account_are_refused_as_the_receiver_does(accounts: Accounts) -> None:
    direct = accounts.default.request("POST", f"/push/{OTHER_SECRET}", FORM % b"wrong")
    for host, secret in ((NAME, OTHER_SECRET), (OTHER_NAME, SECRET), (OTHER_NAME, "x" * 30), (NAME, "x" * 30)):
        refused = accounts.push(host, secret, "wrong")
        assert (refused.status, refused.body) == (404, direct.body)
    assert "wrong" not in {task_id for each in (accounts.default, accounts.market) for _, task_id in stored(each)}


def test_name_that_is_in_no_map_is_the_first_accounts(accounts: Accounts) -> None:
    with accounts.front.connect() as connection:
        answer = ask(connection, f"/push/{SECRET}", FORM % b"unnamed", host="203.0.113.5")
        assert answer.headers["X-Push-Outcome"] in {"accepted", "spooled"}


def test_api_and_console_of_each_account_are_under_its_name(accounts: Accounts) -> None:
    accounts.push(OTHER_NAME, OTHER_SECRET, "shown")
    await_true(lambda: ("market", "shown") in stored(accounts.market))
    key = [f"{name}: {value}" for name, value in accounts.market.make_key("read").items()]
    found = accounts.inside(OTHER_NAME, "/api/v1/messages?task_id=shown", None, *key)
    assert [(item["account"], item["task_id"]) for item in found.json["items"]] == [("market", "shown")]
    assert accounts.inside(NAME, "/api/v1/messages", None, *key).status == 401
    make_user(accounts.market, "anna")
    statuses = {host: log_in(accounts, host) for host in (NAME, OTHER_NAME)}
    assert statuses == {NAME: 401, OTHER_NAME: 303}


def make_user(receiver: ServeProcess, name: str) -> None:
    """Make a user of support with the password, as `receiver users create` does."""
    password_hash = hash_password(PASSWORD, name=name)
    create = partial(
        changes.create_user, name=name, role=Role.SUPPORT, now=datetime.now(UTC), password_hash=password_hash
    )
    with closing(Database(receiver.database_url)) as database:
        database.write(create)


def log_in(accounts: Accounts, host: str) -> int:
    """Log in as anna under one of the names; the status of the answer."""
    page = accounts.inside(host, "/console/login")
    (token,) = set(_CSRF.findall(page.body))
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    form = urlencode({"csrf_token": token.decode(), "name": "anna", "password": PASSWORD}).encode()
    headers = (f"Cookie: {cookie}", f"Referer: https://{host}/console/login", f"Origin: https://{host}")
    kind = "Content-Type: application/x-www-form-urlencoded"
    return accounts.inside(host, "/console/login", form, kind, *headers).status


def test_account_whose_database_or_receiver_is_gone_leaves_the_other_undisturbed(accounts: Accounts) -> None:
    accounts.database.kill()
    begun = time.monotonic()
    outcomes = [accounts.push(NAME, SECRET, f"beside-{number}").headers["X-Push-Outcome"] for number in range(20)]
    took = time.monotonic() - begun
    assert outcomes == ["accepted"] * 20
    assert took < 10  # no push waits for the other account's database
    assert accounts.push(OTHER_NAME, OTHER_SECRET, "kept").headers["X-Push-Outcome"] == "spooled"
    kill(accounts.market)
    assert accounts.push(NAME, SECRET, "alone").headers["X-Push-Outcome"] == "accepted"
    refused = accounts.push(OTHER_NAME, OTHER_SECRET, "lost")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    accounts.database.start()
    accounts.market.start()
    await_true(lambda: ("market", "kept") in stored(accounts.market))
    written = accounts.front.logs()
    assert SECRET not in written
    assert OTHER_SECRET not in written
    assert '"path":"/push/***"' in written
