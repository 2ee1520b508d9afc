"""Who may log in to the console: users, sessions, failed log-ins, look-ups, advice, and the commands for them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from receiver.auth import changes, passwords, users
from receiver.auth.passwords import fits_password, hash_password
from receiver.auth.users import IDLE_MAX, LOCKED_FOR, Role
from receiver.cli import cli
from receiver.core import NameTaken, NotFound, Overloaded, SettingsError
from receiver.db import tables
from receiver.support import advice, lookup_store
from receiver.support.answers import LookupAnswer
from tests.harness.factories import NOON
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from receiver.auth.users import Session, User
    from receiver.runtime import Runtime

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(milliseconds=1)
PASSWORD = "correct horse battery"


def create(runtime: Runtime, name: str = "li.wei", role: Role = Role.SUPPORT, **more: Any) -> User:
    return runtime.database.write(lambda c: changes.create_user(c, name=name, role=role, now=NOON, **more))


def begin(
    runtime: Runtime, user: User, *, at: datetime = NOON, lasts: timedelta = 12 * HOUR, confirmed: bool = True
) -> str:
    return runtime.database.write(
        lambda c: users.begin_session(c, user.id, confirmed=confirmed, address="127.0.0.1", now=at, lasts=lasts)
    )


def session(runtime: Runtime, token: str, at: datetime = NOON) -> Session | None:
    return runtime.ask(lambda c: users.find_session(c, token, at))


# --- Users ----------------------------------------------------------------------------------------------


def test_user_is_as_made_and_found_by_name_and_subject(runtime: Runtime) -> None:
    made = create(runtime, "王.wei@x", Role.ANALYST, oidc_subject="sub-1")
    assert (made.name, made.role, made.created_at, made.password_hash) == ("王.wei@x", Role.ANALYST, NOON, None)
    assert runtime.ask(lambda c: users.find_user(c, "王.wei@x")) == made
    assert runtime.ask(lambda c: users.find_user_of_subject(c, "sub-1")) == made
    assert runtime.ask(lambda c: users.find_user(c, "nobody")) is None
    assert runtime.ask(lambda c: users.find_user_of_subject(c, "sub-2")) is None
    create(runtime, "a")
    assert [user.name for user in runtime.ask(users.list_users)] == ["a", "王.wei@x"]


def test_name_is_taken_once(runtime: Runtime) -> None:
    create(runtime)
    with pytest.raises(NameTaken, match=r"li\.wei"):
        create(runtime, role=Role.ADMIN)


WAYS_TO_WRITE = ["li.wei", "Li.Wei", "LI.WEI", "ｌｉ.ｗｅｉ", "ＬＩ．ＷＥＩ"]


@pytest.mark.parametrize("other", WAYS_TO_WRITE)
def test_name_in_another_case_or_width_is_the_same(runtime: Runtime, other: str) -> None:
    made = create(runtime, "Li.Wei")
    with pytest.raises(NameTaken, match=r"Li\.Wei"):
        create(runtime, other)
    assert runtime.ask(lambda c: users.match_user(c, other)) == made
    runtime.database.write(lambda c: changes.change_user(c, other, now=NOON, disabled_at=NOON))
    assert [user.disabled_at for user in runtime.ask(users.list_users)] == [NOON]


def test_two_whose_names_fold_to_one_are_each_known_by_their_own(runtime: Runtime) -> None:
    create(runtime, "other")
    rows = [{"name": name, "role": "support", "created_at": NOON} for name in ("support1", "Support1")]
    runtime.database.write(lambda c: c.execute(sa.insert(tables.users), rows))
    for name in ("support1", "Support1"):
        found = runtime.ask(lambda c, n=name: users.match_user(c, n))  # type: ignore[misc]
        assert found.name == name
    assert runtime.ask(lambda c: users.match_user(c, "SUPPORT1")) is None
    with pytest.raises(NameTaken):
        create(runtime, "SUPPORT1")


def test_tries_are_counted_over_all_ways_to_write_a_name(runtime: Runtime) -> None:
    for name in WAYS_TO_WRITE:
        runtime.database.write(lambda c, n=name: users.note_failure(c, name=n, address="192.0.2.1", now=NOON))  # type: ignore[misc]
    assert runtime.ask(lambda c: users.is_locked(c, name="lI.wEI", address="192.0.2.1", now=NOON))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: changes.change_user(c, "nobody", now=NOON, password_hash="x"),
        lambda c: changes.change_user(c, "nobody", now=NOON, role=Role.ADMIN.value),
        lambda c: changes.change_user(c, "nobody", now=NOON, disabled_at=NOON),
        lambda c: changes.change_user(c, "nobody", now=NOON, totp_secret="x", totp_step=None),
    ],
)
def test_nobody_is_changed(runtime: Runtime, change: Callable[[sa.Connection], None]) -> None:
    create(runtime)
    with pytest.raises(NotFound, match="nobody"):
        runtime.database.write(change)


# --- Sessions -------------------------------------------------------------------------------------------


def test_session_is_known_by_its_token_of_which_only_a_digest_is_kept(runtime: Runtime) -> None:
    user = create(runtime)
    token, other = begin(runtime, user), begin(runtime, user, confirmed=False)
    held, half = session(runtime, token), session(runtime, other)
    assert held is not None
    assert half is not None
    assert (replace(held.user, last_used_at=None), held.confirmed, held.expires_at) == (user, True, NOON + 12 * HOUR)
    assert (half.confirmed, half.id != held.id) == (False, True)
    assert session(runtime, "") is None
    assert session(runtime, token + "x") is None
    kept = runtime.ask(lambda c: c.execute(sa.select(tables.user_sessions)).mappings().all())
    assert token not in str(kept)


def test_session_expires(runtime: Runtime) -> None:
    token = begin(runtime, create(runtime), lasts=HOUR)
    assert session(runtime, token, NOON + HOUR - TICK) is not None
    assert session(runtime, token, NOON + HOUR) is None


def test_session_that_nobody_uses_ends_and_use_keeps_it(runtime: Runtime) -> None:
    token = begin(runtime, create(runtime))
    held = session(runtime, token, NOON + IDLE_MAX - TICK)
    assert held is not None
    assert session(runtime, token, NOON + IDLE_MAX) is None
    runtime.database.write(lambda c: users.note_seen(c, held, NOON + HOUR))
    assert session(runtime, token, NOON + HOUR + IDLE_MAX - TICK) is not None
    assert session(runtime, token, NOON + HOUR + IDLE_MAX) is None


def test_ended_session_stays_ended(runtime: Runtime) -> None:
    user = create(runtime)
    token, other = begin(runtime, user), begin(runtime, user)
    for _ in range(2):
        runtime.database.write(lambda c: users.end_session(c, token, now=NOON))
    assert session(runtime, token) is None
    assert session(runtime, other) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda c: changes.change_user(c, "li.wei", now=NOON, password_hash="x"),
        lambda c: changes.change_user(c, "li.wei", now=NOON, role=Role.ADMIN.value),
        lambda c: changes.change_user(c, "li.wei", now=NOON, disabled_at=NOON),
        lambda c: changes.change_user(c, "li.wei", now=NOON, totp_secret="x", totp_step=None),
        lambda c: changes.change_user(c, "li.wei", now=NOON, totp_secret=None, totp_step=None),
    ],
    ids=["password", "role", "disabled", "totp set", "totp reset"],
)
def test_whatever_changes_a_user_ends_their_sessions_and_nobody_elses(
    runtime: Runtime, change: Callable[[sa.Connection], None]
) -> None:
    user, other = create(runtime), create(runtime, "other")
    tokens, others = [begin(runtime, user) for _ in range(2)], begin(runtime, other)
    runtime.database.write(change)
    assert [session(runtime, token) for token in tokens] == [None, None]
    assert session(runtime, others) is not None


def test_session_of_a_disabled_user_does_not_hold(runtime: Runtime) -> None:
    user = create(runtime)
    runtime.database.write(lambda c: changes.change_user(c, "li.wei", now=NOON, disabled_at=NOON))
    token = begin(runtime, user)  # begun by a process that had not heard of it
    assert session(runtime, token) is None
    runtime.database.write(lambda c: changes.change_user(c, "li.wei", now=NOON, disabled_at=None))
    assert session(runtime, token) is None  # letting in again is no log-in
    assert session(runtime, begin(runtime, user)) is not None


def test_sessions_are_counted_that_hold(runtime: Runtime) -> None:
    user, other = create(runtime), create(runtime, "other")
    for confirmed in (True, True, False):
        begin(runtime, user, confirmed=confirmed)
    begin(runtime, other, lasts=MINUTE)
    assert runtime.ask(lambda c: users.count_sessions(c, NOON)) == {user.id: 2, other.id: 1}
    assert runtime.ask(lambda c: users.count_sessions(c, NOON + MINUTE)) == {user.id: 2}
    assert runtime.ask(lambda c: users.count_sessions(c, NOON + IDLE_MAX)) == {}
    assert runtime.database.write(lambda c: users.end_sessions_of(c, user.id, now=NOON)) == 3
    assert runtime.ask(lambda c: users.count_sessions(c, NOON)) == {other.id: 1}


# --- Second factor --------------------------------------------------------------------------------------


def test_a_time_step_is_used_once_and_none_before_it(runtime: Runtime) -> None:
    user = create(runtime)

    def use(step: int) -> bool:
        return runtime.database.write(lambda c: users.use_totp_step(c, user.id, step))

    assert [use(step) for step in (7, 7, 6, 8, 8)] == [True, False, False, True, False]
    runtime.database.write(lambda c: changes.change_user(c, "li.wei", now=NOON, totp_secret="new", totp_step=None))
    assert use(3)  # of another secret


# --- Failed log-ins -------------------------------------------------------------------------------------


def fail(runtime: Runtime, count: int, name: str, address: str, at: datetime = NOON) -> None:
    def work(connection: sa.Connection) -> None:
        for _ in range(count):
            users.note_failure(connection, name=name, address=address, now=at)

    runtime.database.write(work)


def locked(runtime: Runtime, name: str, address: str, at: datetime = NOON) -> bool:
    return runtime.ask(lambda c: users.is_locked(c, name=name, address=address, now=at))


def test_five_failures_of_a_name_from_an_address_lock_that_pair_alone(runtime: Runtime) -> None:
    fail(runtime, 4, "a", "10.0.0.1")
    assert not locked(runtime, "a", "10.0.0.1")
    fail(runtime, 1, "a", "10.0.0.1")
    assert locked(runtime, "a", "10.0.0.1")
    assert not locked(runtime, "a", "10.0.0.2")
    assert not locked(runtime, "b", "10.0.0.1")


def test_many_names_from_one_address_lock_the_address(runtime: Runtime) -> None:
    for number in range(19):
        fail(runtime, 1, f"name{number}", "10.0.0.1")
    assert not locked(runtime, "a", "10.0.0.1")
    fail(runtime, 1, "name19", "10.0.0.1")
    assert locked(runtime, "a", "10.0.0.1")
    assert not locked(runtime, "a", "10.0.0.2")


def test_one_name_from_many_addresses_locks_the_name(runtime: Runtime) -> None:
    for number in range(49):
        fail(runtime, 1, "a", f"10.0.0.{number}")
    assert not locked(runtime, "a", "10.0.1.1")
    fail(runtime, 1, "a", "10.0.0.49")
    assert locked(runtime, "a", "10.0.1.1")
    assert not locked(runtime, "b", "10.0.1.1")


def test_lock_ends_a_quarter_of_an_hour_after_the_last_failure(runtime: Runtime) -> None:
    fail(runtime, 5, "a", "10.0.0.1")
    assert locked(runtime, "a", "10.0.0.1", NOON + LOCKED_FOR - TICK)
    assert not locked(runtime, "a", "10.0.0.1", NOON + LOCKED_FOR)
    fail(runtime, 1, "a", "10.0.0.1", NOON + LOCKED_FOR)  # counts from one again
    assert not locked(runtime, "a", "10.0.0.1", NOON + LOCKED_FOR)
    fail(runtime, 4, "a", "10.0.0.1", NOON + 2 * LOCKED_FOR - TICK)
    assert locked(runtime, "a", "10.0.0.1", NOON + 2 * LOCKED_FOR)


def test_log_in_forgets_the_failures_of_its_pair_but_not_those_of_its_address(runtime: Runtime) -> None:
    fail(runtime, 19, "a", "10.0.0.1")
    runtime.database.write(lambda c: users.forget_failures(c, name="a", address="10.0.0.1"))
    assert not locked(runtime, "a", "10.0.0.1")
    fail(runtime, 1, "b", "10.0.0.1")
    assert locked(runtime, "a", "10.0.0.1")


def test_names_of_strangers_are_not_kept(runtime: Runtime) -> None:
    fail(runtime, 1, "my-password-typed-as-name", "10.0.0.1")
    kept = runtime.ask(lambda c: c.execute(sa.select(tables.login_failures)).mappings().all())
    assert len(kept) == 3
    assert "my-password" not in str(kept)


# --- Look-ups and advice --------------------------------------------------------------------------------


def test_look_up_is_its_users_alone_and_kept_for_a_day(runtime: Runtime) -> None:
    user, other = create(runtime), create(runtime, "other")
    token = runtime.database.write(lambda c: lookup_store.save_look_up(c, user.id, "150 8092 1090", now=NOON))

    def find(by: User, at: datetime) -> str | None:
        return runtime.ask(lambda c: lookup_store.find_look_up(c, by.id, token, now=at))

    assert find(user, NOON + DAY - TICK) == "150 8092 1090"
    assert find(user, NOON + DAY) is None
    assert find(other, NOON) is None
    assert runtime.ask(lambda c: lookup_store.find_look_up(c, user.id, "x", now=NOON)) is None
    runtime.database.write(lambda c: lookup_store.save_look_up(c, user.id, "next", now=NOON + DAY + TICK))
    assert runtime.ask(lambda c: c.scalars(sa.select(tables.look_ups.c.text)).all()) == ["next"]


def test_advice_is_by_language_and_empty_text_takes_it_away(runtime: Runtime) -> None:
    def save(language: str, late: str = "", failed: str = "") -> None:
        texts = {LookupAnswer.LATE: late, LookupAnswer.FAILED: failed}
        advice.set_advice(runtime.trail, "cli", language, texts)

    save("en", late="Wait.", failed="Ask.")
    save("zh-CN", late="等一下")
    save("en", late="Wait a little.", failed="")
    assert runtime.ask(lambda c: advice.list_advice(c, "en")) == {"late": "Wait a little."}
    assert runtime.ask(lambda c: advice.list_advice(c, "zh-CN")) == {"late": "等一下"}


# --- Passwords ------------------------------------------------------------------------------------------


def test_passwords_are_hashed_as_rfc_9106_asks() -> None:
    """Asked of a process of its own: in this one passwords are hashed quickly."""
    program = "from receiver.auth.passwords import hash_password; print(hash_password('correct horse', name='li.wei'))"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert made.stdout.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_password_fits_its_own_hash_alone() -> None:
    kept = hash_password("密码 correct horse", name="li.wei")
    assert kept.startswith("$argon2id$")
    assert fits_password(kept, "密码 correct horse")
    assert not fits_password(kept, "密码 correct horse ")
    assert not fits_password(kept, "")
    assert not fits_password(None, "密码 correct horse")
    assert not fits_password("no hash at all", "密码 correct horse")


def test_no_more_than_two_passwords_are_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Semaphore(0)
    go_on = threading.Event()

    class SlowHasher:
        def verify(self, *_: str) -> None:
            tried.release()
            go_on.wait(20)

    monkeypatch.setattr(passwords, "_hasher", SlowHasher())
    monkeypatch.setattr(passwords, "_PATIENCE_SECONDS", 0.05)
    trying = [threading.Thread(target=fits_password, args=("hash", "password")) for _ in range(2)]
    for thread in trying:
        thread.start()
    assert tried.acquire(timeout=20)
    assert tried.acquire(timeout=20)
    with pytest.raises(Overloaded, match="try again"):
        fits_password("hash", "password")
    go_on.set()
    for thread in trying:
        thread.join()
    assert fits_password("hash", "password")  # and a place is free again


def test_password_of_the_greatest_length_counts_to_its_end() -> None:
    longest = "0123456789abcdef" * 16
    kept = hash_password(longest, name="x")
    assert fits_password(kept, longest)
    assert not fits_password(kept, longest + "x")
    assert not fits_password(kept, longest[:-1])


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "too short"),
        ("123456789", "too short"),
        ("x" * 257, "over 256"),
        ("abababababab", "too easily guessed"),
        ("the Li.Wei password", "too easily guessed"),
    ],
)
def test_weak_passwords_are_refused_with_what_is_wrong(password: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        hash_password(password, name="li.wei")


# --- The commands ---------------------------------------------------------------------------------------


def test_users_are_made_listed_changed_and_kept_out_by_command(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path)
    process.upgrade()

    def listed() -> dict[str, Any]:
        (user,) = json.loads(process.run("users", "list", "--json").stdout)
        assert set(user) == {
            "name", "role", "accounts", "totp", "oidc", "created_at", "last_used_at", "disabled_at",
        }  # fmt: skip
        return {name: user[name] for name in ("name", "role", "totp")} | {"disabled": user["disabled_at"] is not None}

    made = process.run("users", "create", "li.wei", "--role", "support", stdin=f"{PASSWORD}\nsecond line\n")
    assert (made.returncode, made.stderr) == (0, "")
    assert "li.wei may log in as support" in made.stdout
    assert "/console" in made.stdout
    assert process.run("users", "role", "li.wei", "--role", "admin").returncode == 0
    assert process.run("users", "disable", "li.wei").returncode == 0
    assert listed() == {"name": "li.wei", "role": "admin", "totp": False, "disabled": True}
    assert process.run("users", "enable", "li.wei").returncode == 0
    assert process.run("users", "password", "li.wei", stdin="another good one\n").returncode == 0
    weak = process.run("users", "password", "li.wei", stdin="li.wei li.wei\n")
    assert (weak.returncode, "too easily guessed" in weak.stderr) == (1, True)
    assert process.run("users", "reset-totp", "li.wei").returncode == 0
    assert listed()["disabled"] is False
    unknown = process.run("users", "disable", "nobody")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (1, 1)
    assert "there is no user named nobody" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("create", "li wei", "--role", "support"), PASSWORD, "NAME: letters, digits"),
        (("create", "x" * 65, "--role", "support"), PASSWORD, "NAME: letters, digits"),
        (("create", "li.wei", "--role", "support"), "short\n", "too short"),
        (("create", "li.wei", "--role", "support"), "", "too short"),
    ],
)
def test_name_or_password_that_cannot_be_used_is_told(arguments: tuple[str, ...], stdin: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["users", *arguments], input=stdin)
    assert isinstance(result.exception, SettingsError)
    assert said in str(result.exception)


@pytest.mark.parametrize("arguments", [("create", "li.wei", "--role", "boss"), ("create", "li.wei"), ("role", "x")])
def test_role_has_to_be_one_of_them(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["users", *arguments], input=PASSWORD)
    assert result.exit_code == 2
    assert "--role" in result.output


@pytest.mark.parametrize("command", ["create", "list", "password", "role", "disable", "enable", "reset-totp"])
def test_every_users_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli, ["users", command, "--help"])
    assert shown.exit_code == 0
    assert f"  receiver users {command}" in shown.output
