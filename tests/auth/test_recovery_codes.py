"""A recovery code opens one log-in, its own user's only, and is stored as a digest."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.auth import service, users
from receiver.auth.users import Role, User, WrongCode
from receiver.db import tables

if TYPE_CHECKING:
    from receiver.runtime import Runtime

PASSWORD = "correct horse battery"


def enrolled(runtime: Runtime, name: str) -> tuple[User, list[str]]:
    """A user with a second factor, and their recovery codes."""
    user = service.create_user(runtime.trail, "test", name=name, role=Role.ADMIN, password=PASSWORD)
    return user, service.set_totp(runtime.trail, f"user:{name}", user, "JBSWY3DPEHPK3PXP", step=1)


def left(runtime: Runtime, name: str) -> int:
    return runtime.ask(lambda c: users.get_user(c, name)).recovery_codes_left


def use(runtime: Runtime, user: User, code: str) -> int | None:
    try:
        return service.use_recovery_code(runtime.trail, f"user:{user.name}", user, code)
    except WrongCode:
        return None


def test_ten_codes_each_once_of_which_only_digests_are_stored(runtime: Runtime) -> None:
    user, codes = enrolled(runtime, "li.wei")
    other, others = enrolled(runtime, "other")
    assert len(set(codes + others)) == 20
    assert all(re.fullmatch(r"([a-hjkmnp-z2-9]{4}-){3}[a-hjkmnp-z2-9]{4}", code) for code in codes)
    stored = str(runtime.ask(lambda c: c.execute(sa.select(tables.users)).all()))
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    assert use(runtime, other, codes[0]) is None
    assert use(runtime, user, codes[0]) == 9
    assert use(runtime, user, codes[0]) is None
    assert use(runtime, user, f" {codes[1].upper().replace('-', ' ')} ") == 8
    assert [use(runtime, user, wrong) for wrong in ("", "-", codes[2][:-1], "\udcff", "长")] == [None] * 5
    assert (left(runtime, "li.wei"), left(runtime, "other")) == (8, 10)
    actions = runtime.ask(lambda c: c.execute(sa.select(tables.audit.c.action, tables.audit.c.detail)).all())
    noted = [row.detail for row in actions if row.action == "user.use_recovery_code"]
    assert noted == [{"name": "li.wei", "left": 9}, {"name": "li.wei", "left": 8}]


def test_a_code_is_taken_once_by_two_at_once(runtime: Runtime) -> None:
    user, codes = enrolled(runtime, "li.wei")
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: use(runtime, user, codes[0]), range(4)))
    assert sorted(taken, key=str) == [9, None, None, None]
    assert left(runtime, "li.wei") == 9


@pytest.mark.parametrize("change", [service.renew_recovery_codes, service.reset_totp], ids=["renewed", "reset"])
def test_old_codes_end_with_new_ones_and_with_the_second_factor(runtime: Runtime, change: object) -> None:
    user, codes = enrolled(runtime, "li.wei")
    new = change(runtime.trail, "user:li.wei", user) or []  # type: ignore[operator]
    assert use(runtime, user, codes[0]) is None
    assert left(runtime, "li.wei") == len(new)
    assert [use(runtime, user, code) for code in new[:1]] == [9][: len(new)]
