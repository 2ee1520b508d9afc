"""The bar of the staff pages: the menu of each role, the name of the company."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.auth import changes
from tests.web.console.staff import create, log_in, one_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime
    from tests.web.console.staff import Page, Staff

pytestmark = one_database


def menu(page: Page) -> list[str]:
    """The addresses of the menu, in its order."""
    html = page.html
    inside = html[html.index('<nav id="menu"') : html.index("</nav>")]
    return [piece.partition('"')[0] for piece in inside.split('<a href="')[1:]]


@pytest.mark.parametrize("role", ["support", "analyst", "admin"])
def test_menu_lists_the_pages_that_the_role_may_see_and_they_open(runtime: Runtime, role: str) -> None:
    staff = log_in(create_app(runtime), runtime, role)
    listed = menu(staff.page("/account"))
    assert {"/console/messages", "/console/replies", "/console/status"} <= set(listed)
    assert ("/console/" in listed) is (role != "analyst")
    assert ("/console/reports" in listed) is (role != "support")
    assert ("/console/users" in listed) is (role == "admin")
    for path in listed:
        assert staff.get(path.removeprefix("/console")).status_code == 200, path


def test_pages_of_all_accounts_are_not_listed_for_who_is_bound_to_some(runtime: Runtime) -> None:
    create(runtime, "bound", "admin")
    runtime.database.write(lambda c: changes.change_user(c, "bound", now=runtime.now(), accounts=("default",)))
    listed = menu(log_in(create_app(runtime), runtime, "admin", name="bound").page("/account"))
    assert "/console/users" in listed
    assert not {"/console/audit", "/console/advice", "/console/webhooks"} & set(listed)


def test_company_name_stands_in_bar_title_and_log_in(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(console_name="甲 & 乙")
    app = create_app(runtime)
    bare = app.test_client().get("/console/login").text
    assert "甲 &amp; 乙</title>" in bare
    assert "<strong>甲 &amp; 乙</strong>" in bare
    staff: Staff = log_in(app, runtime, "support")
    inside = staff.get("/account").text
    assert "甲 &amp; 乙</title>" in inside
    assert "<span>甲 &amp; 乙</span>" in inside
