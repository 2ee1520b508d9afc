"""Who is let in at the staff pages, and what keeps them safe: roles, forms, sessions, headers, second factor."""

from __future__ import annotations

import uuid
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
import sqlalchemy as sa
import time_machine

from receiver.app import create_app
from receiver.audit import list_audit
from receiver.auth import changes, users
from receiver.auth.users import Role
from receiver.config import SecondFactor
from receiver.db import tables
from receiver.web.console.session import POLICIES
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push
from tests.harness.journal import save_pushes
from tests.intake.test_push import RECEIPT, push
from tests.web.console.staff import PASSWORD, Page, Staff, create, log_in, one_database, plain_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask

    from receiver.runtime import Runtime

VISITORS = ("nobody", "half", "support", "analyst", "admin")
PUSH_ID = str(uuid.UUID(int=7))

# L: led to the log-in, 2: led to the second factor, F: refused for the role, o: let in.
# By column: nobody, half logged in, support, analyst, admin.
MATRIX = {
    "GET /console/static/console.css": "ooooo",
    "GET /console/login": "ooooo",
    "POST /console/login": "ooooo",
    "POST /console/language": "ooooo",
    "GET /console/oidc": "ooooo",  # 404 where it is not set
    "GET /console/oidc/done": "ooooo",
    "GET /console/second-factor": "Loooo",
    "POST /console/second-factor": "Loooo",
    "POST /console/logout": "Loooo",
    "GET /console/": "L2ooo",
    "GET /console/banner": "L2ooo",
    "GET /console/account": "L2ooo",
    "POST /console/account": "L2ooo",
    "GET /console/status": "L2ooo",
    "GET /console/incidents": "L2ooo",
    "GET /console/runbook": "L2ooo",
    "GET /console/docs": "L2ooo",
    "GET /console/docs/nowhere": "L2ooo",
    "GET /console/docs/images/?": "L2ooo",
    "GET /console/nowhere": "L2ooo",
    "POST /console/look-up": "L2oFo",
    "GET /console/look-up/t": "L2oFo",
    "GET /console/look-up/t/answer": "L2oFo",
    "POST /console/look-up/row": "L2oFo",
    "GET /console/cases": "L2ooo",
    "POST /console/messages/1/notes": "L2oFo",
    "GET /console/messages/1/reveal": "L2oFo",
    "POST /console/messages/1/reveal": "L2oFo",
    "GET /console/messages": "L2ooo",
    "POST /console/messages/numbers": "L2oFo",
    "POST /console/replies/numbers": "L2oFo",
    "GET /console/messages/1": "L2ooo",
    "GET /console/replies": "L2ooo",
    "GET /console/opt-outs": "L2ooo",
    "POST /console/opt-outs/export": "L2Foo",
    "GET /console/reports": "L2Foo",
    "GET /console/reports/days.csv": "L2Foo",
    "GET /console/exports": "L2ooo",
    "GET /console/exports/messages": "L2ooo",
    "GET /console/pushes": "L2FFo",
    "GET /console/tail": "L2FFo",
    f"GET /console/pushes/{PUSH_ID}": "L2FFo",
    f"POST /console/pushes/{PUSH_ID}/replay": "L2FFo",
    "POST /console/pushes/numbers": "L2FFo",
    "POST /console/pushes/replay": "L2FFo",
    "POST /console/pushes/seen": "L2FFo",
    "GET /console/setup": "L2FFo",
    "POST /console/setup/self-test": "L2FFo",
    "GET /console/test-message": "L2FFo",
    "POST /console/test-message": "L2FFo",
    "GET /console/test-message/1": "L2FFo",
    "GET /console/users": "L2FFo",
    "POST /console/users": "L2FFo",
    "POST /console/users/x": "L2FFo",
    "GET /console/keys": "L2FFo",
    "POST /console/keys": "L2FFo",
    "POST /console/keys/revoke": "L2FFo",
    "GET /console/webhooks": "L2FFo",
    "POST /console/webhooks": "L2FFo",
    "POST /console/webhooks/change": "L2FFo",
    "GET /console/webhooks/x": "L2FFo",
    "POST /console/webhooks/x": "L2FFo",
    "GET /console/webhooks/x/dead": "L2FFo",
    "GET /console/audit": "L2FFo",
    "POST /console/audit": "L2FFo",
    "POST /console/audit/export": "L2FFo",
    "GET /console/access": "L2FFo",
    "GET /console/advice": "L2FFo",
    "POST /console/advice": "L2FFo",
}
POSTS = [route.partition(" ")[2] for route in MATRIX if route.startswith("POST")]
OPEN_POSTS = [route.partition(" ")[2] for route, who in MATRIX.items() if route.startswith("POST") and who == "ooooo"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, Runtime]]:
    """One application with a user of support, for what no database changes."""
    with plain_runtime(tmp_path_factory.mktemp("console")) as runtime:
        create(runtime, "li.wei", "support")
        yield create_app(runtime), runtime


def routes(app: Flask) -> set[str]:
    values = {
        "<row_id:message_id>": "1", "<push_id>": PUSH_ID, "<token>": "t", "<path:path>": "nowhere",
        "<path:filename>": "console.css",
    }  # fmt: skip
    names = {
        "console.user": "x",
        "console.webhook": "x",
        "console.dead_letters": "x",
        "console.report_csv": "days",
        "console.export": "messages",
    }
    found = set()
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith("console."):
            continue
        path = rule.rule.replace("<name>", names.get(rule.endpoint, "?"))
        for placeholder, value in values.items():
            path = path.replace(placeholder, value)
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def visit(app: Flask, runtime: Runtime, who: str) -> Staff:
    if who == "nobody":
        return Staff(app)
    return log_in(app, runtime, "admin" if who == "half" else who, confirmed=who != "half")


def outcome(staff: Staff, route: str) -> str:
    method, _, path = route.partition(" ")
    path = path.removeprefix("/console")
    had_a_session = staff.token is not None
    answer = staff.get(path) if method == "GET" else staff.post(path)
    answer.close()
    location = answer.headers.get("Location", "")
    if answer.status_code == 403:
        return "F"
    assert answer.status_code not in (400, 405, 500, 503), (route, answer.status_code)
    if location.startswith("/console/second-factor"):
        return "2"
    to_log_in = location.startswith("/console/login") and (path != "/logout" or not had_a_session)
    return "L" if to_log_in else "o"


# --- Roles ----------------------------------------------------------------------------------------------


def test_every_route_is_in_the_table(plain: tuple[Flask, Runtime]) -> None:
    app, _ = plain
    assert routes(app) == set(MATRIX)
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint.startswith("console.")}
    assert endpoints == set(POLICIES)


def test_every_route_lets_in_whom_it_should(app: Flask, runtime: Runtime) -> None:
    found = dict.fromkeys(MATRIX, "")
    for who in VISITORS:
        staff = visit(app, runtime, who)
        for route in sorted(MATRIX, key=lambda route: route.endswith("/logout")):  # that one last
            found[route] += outcome(staff, route)
        assert not staff.logged_in
    assert found == MATRIX


def test_nobody_is_led_back_to_where_they_wanted_to_go(plain: tuple[Flask, Runtime]) -> None:
    staff = Staff(plain[0])
    answer = staff.get("/messages?status=failed")
    assert (answer.status_code, answer.headers["Location"]) == (
        303, "/console/login?next=/console/messages?status%3Dfailed",
    )  # fmt: skip
    assert staff.get("/").headers["Location"] == "/console/login"
    assert staff.post("/logout").headers["Location"] == "/console/login"


def test_part_of_a_page_leads_the_whole_page_to_the_log_in(plain: tuple[Flask, Runtime]) -> None:
    answer = Staff(plain[0]).get("/banner", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"], answer.data) == (401, "/console/login", b"")


@one_database
def test_route_without_a_policy_is_closed_to_all(app: Flask, runtime: Runtime) -> None:
    app.add_url_rule("/console/forgotten", "console.forgotten", lambda: "open")
    expected = {"nobody": "L", "half": "2", "support": "F", "analyst": "F", "admin": "F"}
    found = {who: outcome(visit(app, runtime, who), "GET /console/forgotten") for who in VISITORS}
    assert found == expected


# --- Forms ----------------------------------------------------------------------------------------------


def everything(runtime: Runtime) -> list[Any]:
    kept = (tables.users, tables.user_sessions, tables.api_keys, tables.audit, tables.look_ups, tables.advice)
    return runtime.ask(lambda c: [c.execute(sa.select(table).order_by(*table.primary_key)).all() for table in kept])


def test_no_form_is_taken_without_its_own_sessions_token(app: Flask, runtime: Runtime) -> None:
    staff, other = log_in(app, runtime, "admin"), log_in(app, runtime, "admin")
    assert staff.csrf != other.csrf
    before = everything(runtime)
    fields = {
        "action": "disable", "name": "new", "role": "admin", "password": PASSWORD, "scope": "read", "late": "x",
        "wanted": "1090", "reason": "because", "end": "1", "language": "zh-CN",
    }  # fmt: skip
    for path in POSTS:
        for token in ({}, {"csrf_token": ""}, {"csrf_token": "x"}, {"csrf_token": other.csrf}):
            answer = staff.client.post(path, data=fields | token)
            assert answer.status_code == 400, (path, token)
            assert "This form has expired" in answer.text
            stranger = Staff(app).client.post(path, data=fields | token)
            led_away = stranger.headers.get("Location") == "/console/login"
            assert stranger.status_code == 400 or (path not in OPEN_POSTS and led_away), (path, stranger)
    assert everything(runtime) == before
    assert staff.logged_in


# --- Sessions -------------------------------------------------------------------------------------------


def enter(app: Flask, name: str, password: str = PASSWORD, following: str = "", **more: Any) -> tuple[Staff, Any]:
    """Log in at the form, as far as the password leads."""
    staff = Staff(app)
    answer = staff.post("/login", {"name": name, "password": password, "next": following}, **more)
    return staff, answer


def secret_of(staff: Staff) -> str:
    return staff.page("/second-factor").at("key")


def code(secret: str, runtime: Runtime, steps: int = 0) -> str:
    return pyotp.TOTP(secret).generate_otp(int(runtime.now().timestamp()) // 30 + steps)


def test_token_changes_at_log_in_and_at_the_second_factor(app: Flask, runtime: Runtime) -> None:
    create(runtime, "admin", "admin")
    staff = Staff(app)
    attacker = "a-token-that-somebody-else-has-put-there"
    staff.token = attacker
    assert staff.post("/login", {"name": "admin", "password": PASSWORD}).status_code == 303
    half = staff.token
    assert half not in (None, attacker)
    answer = staff.post("/second-factor", {"code": code(secret_of(staff), runtime)})
    assert (answer.status_code, 'href="/console/"' in answer.text) == (200, True)
    whole = staff.token
    assert whole not in (None, half, attacker)
    for old in (attacker, half):
        other = Staff(app)
        other.token = str(old)
        assert not other.logged_in
        assert other.get("/second-factor").status_code == 303
    assert staff.logged_in
    assert staff.post("/login", {"name": "admin", "password": PASSWORD}).status_code == 303
    assert staff.token != whole
    other = Staff(app)
    other.token = str(whole)
    assert not other.logged_in


def test_name_is_typed_in_any_case_and_width_and_nobody_changes_their_own_account_so(
    app: Flask, runtime: Runtime
) -> None:
    create(runtime, "Support1", "support")
    for name in ("support1", "SUPPORT1", "ｓｕｐｐｏｒｔ１"):
        staff = Staff(app)
        staff.post("/login", {"name": name, "password": PASSWORD})
        assert staff.logged_in
    log_in(app, runtime, "admin").post("/users/ADMIN", {"action": "role_support"})
    assert runtime.ask(lambda c: users.get_user(c, "admin")).role is Role.ADMIN


def test_old_cookie_is_dead_after_whatever_ends_its_session(app: Flask, runtime: Runtime) -> None:
    admin, clerk = log_in(app, runtime, "admin"), log_in(app, runtime, "support")

    def ends(change: Callable[[Staff], Any]) -> bool:
        staff = log_in(app, runtime, "support")
        twin = Staff(app)
        twin.token = str(staff.token)
        assert twin.logged_in
        assert change(staff).status_code in (200, 303)
        return not twin.logged_in

    assert ends(lambda staff: staff.post("/logout"))
    assert clerk.logged_in  # another browser of theirs
    assert ends(lambda staff: staff.post("/account", {"end": "1"}))
    assert not clerk.logged_in
    new = "another fine password"
    assert ends(lambda staff: staff.post("/account", {"present": PASSWORD, "new": new}))
    for action in ("disable", "enable", "role_analyst", "reset_totp", "end_sessions"):
        assert action == "enable" or ends(
            lambda _, action=action: admin.post("/users/support", {"action": action, "sure": "yes"})
        )
        admin.post("/users/support", {"action": "enable"})
        admin.post("/users/support", {"action": "role_support"})
    assert admin.logged_in


@one_database
def test_own_password_is_changed_by_whoever_knows_the_present_one(app: Flask, runtime: Runtime) -> None:
    staff = log_in(app, runtime, "support")
    before = staff.token
    for present, new in (("wrong", "another fine password"), (PASSWORD, "short"), (PASSWORD, "my support password")):
        assert staff.post("/account", {"present": present, "new": new}).status_code == 422
    assert staff.token == before
    assert staff.post("/account", {"present": PASSWORD, "new": "another fine password"}).status_code == 200
    assert staff.token != before
    assert staff.logged_in
    assert enter(app, "support")[1].status_code == 401
    assert enter(app, "support", "another fine password")[1].status_code == 303


@one_database
def test_cookie_is_for_the_console_alone(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(trusted_proxies=(ip_network("10.0.0.0/8"),))
    app = create_app(runtime)
    create(runtime, "li.wei", "support")

    def cookie(peer: str, **headers: str) -> list[str]:
        more = {"environ_overrides": {"REMOTE_ADDR": peer}, "headers": headers}
        answer = Staff(app).client.get("/console/login", **more)
        (set_cookie,) = answer.headers.getlist("Set-Cookie")
        assert ("Strict-Transport-Security" in answer.headers) == ("Secure" in set_cookie)
        return sorted(set_cookie.split("; ")[1:])

    plain = ["HttpOnly", "Path=/console", "SameSite=Lax"]
    proto = {"X-Forwarded-Proto": "https"}
    assert cookie("10.0.0.1", **proto) == ["HttpOnly", "Path=/console", "SameSite=Lax", "Secure"]
    assert cookie("10.0.0.1", **{"X-Forwarded-Proto": "http"}) == plain
    assert cookie("10.0.0.1") == plain
    assert cookie("192.0.2.1", **proto) == plain
    staff, answer = enter(app, "li.wei")
    assert answer.headers["Location"] == "/console/"
    bearer = {"Authorization": make_key(runtime)}
    others = [
        push(staff.client, RECEIPT),
        staff.client.get("/api/v1/messages", headers=bearer),
        *(staff.client.get(path) for path in ("/healthz", "/readyz", "/", "/api/v1/openapi.json", "/consolex")),
    ]
    assert [answer.headers.getlist("Set-Cookie") for answer in others] == [[]] * len(others)
    assert not any("Content-Security-Policy" in answer.headers and "console" in answer.text for answer in others[:4])


@pytest.mark.parametrize(
    ("following", "leads_to"),
    [
        ("/console/messages?status=failed", "/console/messages?status=failed"),
        ("", "/console/"),
        ("https://evil.example/", "/console/"),
        ("//evil.example/", "/console/"),
        ("/console//evil.example", "/console/"),
        ("/\\evil.example", "/console/"),
        ("/console/\\evil.example", "/console/"),
        ("/consolex", "/console/"),
        ("/api/v1/docs", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/console/\r\nSet-Cookie: a=b", "/console/"),
        ("/console/x\tx", "/console/"),
        ("/console/\u202ex", "/console/"),
        (" /console/messages", "/console/"),
    ],
)
def test_nobody_is_led_elsewhere(following: str, leads_to: str, plain: tuple[Flask, Runtime]) -> None:
    app, _ = plain
    assert enter(app, "li.wei", following=following)[1].headers["Location"] == leads_to
    asked = Staff(app).client.get("/console/login", query_string={"next": following})
    assert Page(asked.text).shape == Staff(app).page("/login").shape
    chosen = Staff(app).post("/language", {"language": "zh-CN", "next": following})
    assert (chosen.status_code, chosen.headers["Location"]) == (303, leads_to)


def test_language_is_the_browsers_until_one_is_chosen(plain: tuple[Flask, Runtime]) -> None:
    app, _ = plain
    staff = Staff(app)

    def lang(wish: str) -> tuple[str | None, str | None]:
        answer = staff.get("/login", headers={"Accept-Language": wish})
        return dict(Page(answer.text).tags[0][1])["lang"], answer.headers["Content-Language"]

    assert [lang(wish) for wish in ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-TW", "en-GB", "de")] == [
        ("en", "en"), ("zh-CN", "zh-CN"), ("zh-CN", "zh-CN"), ("en", "en"), ("en", "en"),
    ]  # fmt: skip
    staff.post("/language", {"language": "zh-CN"})
    assert lang("en") == ("zh-CN", "zh-CN")
    staff.post("/language", {"language": "xx"})
    assert lang("en") == ("zh-CN", "zh-CN")
    staff.post("/language", {"language": "en"})
    assert lang("zh-CN") == ("en", "en")


# --- Headers --------------------------------------------------------------------------------------------

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@one_database
def test_every_answer_has_the_headers_and_no_page_has_code_of_its_own(app: Flask, runtime: Runtime) -> None:
    save_pushes(runtime.database, [make_push(), make_push(content="你好"), make_push(body=b"mobile=1")])
    admin, clerk, nobody = log_in(app, runtime, "admin"), log_in(app, runtime, "support"), Staff(app)
    half = log_in(app, runtime, "admin", confirmed=False)
    answers = [
        *(admin.client.get(route.partition(" ")[2]) for route in MATRIX if route.startswith("GET")),
        *(admin.post(path) for path in ("/look-up", "/users", "/keys", "/nowhere", "/messages", "/pushes/x/replay")),
        admin.post("/keys", {"name": "k", "scope": "read"}),
        admin.post("/messages/1/reveal", {"reason": "a caller"}),
        *(admin.get(path) for path in ("/messages?cursor=x", "/exports/nope", "/static/nope", "/users/%00", "//x")),
        admin.client.get("/console"),
        admin.client.post("/console/users", data={}),
        clerk.get("/users"),
        nobody.get("/login"),
        nobody.get("/users"),
        nobody.get("/banner", headers={"HX-Request": "true"}),
        nobody.post("/login", {"name": "x", "password": "y"}),
        half.get("/second-factor"),
    ]
    assert {200, 302, 303, 400, 401, 403, 404, 405, 422} <= {answer.status_code for answer in answers}
    for answer in answers:
        path = answer.request.path
        found = {name: answer.headers.get(name) for name in ("X-Frame-Options", "X-Content-Type-Options")}
        assert found == {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"}, path
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["Referrer-Policy"] == "same-origin"
        static = path == "/console/static/console.css"
        assert answer.headers["Cache-Control"] == ("private, max-age=86400" if static else "no-store"), path
        if answer.mimetype == "text/html" and not 300 <= answer.status_code < 400:
            assert code_inside(Page(answer.text)) == [], path


def code_inside(page: Page) -> list[Any]:
    """What the policy would not let run, or what would run from elsewhere."""
    return [
        (tag, given)
        for tag, given in page.tags
        if (tag == "script" and not str(given.get("src")).startswith("/console/static/"))
        or tag in ("style", "iframe", "object", "embed", "base")
        or any(name.startswith("on") or name in ("style", "hx-on") for name in given)
        or str(given.get("href") or "").lower().startswith(("javascript:", "http", "//", "data:"))
        or str(given.get("src") or "").startswith(("http", "//"))
    ]


# --- The log-in and the second factor -------------------------------------------------------------------


@one_database
def test_support_needs_no_second_factor_and_the_others_do(app: Flask, runtime: Runtime) -> None:
    for role in Role:
        create(runtime, role.value, role.value)
    assert {role.value: enter(app, role.value)[1].headers["Location"] for role in Role} == {
        "support": "/console/",
        "analyst": "/console/second-factor",
        "admin": "/console/second-factor",
    }


@one_database
def test_nobody_needs_a_second_factor_where_none_is_required(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(console_totp=SecondFactor.OPTIONAL)
    create(runtime, "admin", "admin")
    staff, answer = enter(create_app(runtime), "admin", following="/console/users")
    assert (answer.headers["Location"], staff.logged_in) == ("/console/users", True)


@one_database
def test_unknown_name_wrong_password_and_kept_out_are_answered_alike(app: Flask, runtime: Runtime) -> None:
    create(runtime, "li.wei", "support")
    create(runtime, "gone", "support")
    runtime.database.write(lambda c: changes.change_user(c, "gone", now=runtime.now(), disabled_at=runtime.now()))
    tried = [enter(app, *pair) for pair in (("li.wei", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD), ("", ""))]
    assert [answer.status_code for _, answer in tried] == [401] * 4
    assert {Page(answer.text).at("error") for _, answer in tried} == {"Incorrect username or password."}
    assert not any(staff.logged_in for staff, _ in tried)


def test_second_factor_is_set_up_at_the_first_log_in_and_asked_for_at_every_other(app: Flask, runtime: Runtime) -> None:
    create(runtime, "admin", "admin")
    with time_machine.travel(NOON, tick=False) as clock:
        staff, answer = enter(app, "admin", following="/console/users")
        assert answer.headers["Location"] == "/console/second-factor?next=/console/users"
        secret = secret_of(staff)
        assert secret_of(staff) == secret  # the same while this session lasts
        assert secret_of(enter(app, "admin")[0]) != secret
        assert staff.post("/second-factor", {"code": "000000"}).status_code == 401
        answer = staff.post("/second-factor", {"code": code(secret, runtime), "next": "/console/users"})
        assert (answer.status_code, 'href="/console/users"' in answer.text) == (200, True)
        staff, _ = enter(app, "admin")
        assert "key" not in staff.page("/second-factor").by_id  # shown once
        used = code(secret, runtime)
        assert staff.post("/second-factor", {"code": used}).status_code == 401  # used to set it up
        assert staff.post("/second-factor", {"code": code(secret, runtime, -1)}).status_code == 401
        assert staff.post("/second-factor", {"code": code(secret, runtime, 2)}).status_code == 401
        following = code(secret, runtime, 1)  # of a clock that is ahead
        assert staff.post("/second-factor", {"code": f" {following[:3]} {following[3:]} "}).status_code == 303
        assert staff.logged_in
        clock.shift(90)
        staff, _ = enter(app, "admin")
        assert staff.post("/second-factor", {"code": code(secret, runtime, -1)}).status_code == 303  # behind
        assert not any(secret in str(line) for line in runtime.ask(lambda c: list_audit(c, 100)))


@one_database
def test_five_wrong_codes_lock_though_the_password_is_given_again_and_again(app: Flask, runtime: Runtime) -> None:
    create(runtime, "admin", "admin")
    with time_machine.travel(NOON, tick=False) as clock:
        first, _ = enter(app, "admin")
        secret = secret_of(first)
        assert first.post("/second-factor", {"code": code(secret, runtime)}).status_code == 200
        clock.shift(60)
        for _ in range(5):
            staff, answer = enter(app, "admin")
            assert answer.status_code == 303
            assert staff.post("/second-factor", {"code": "000000"}).status_code == 401
        assert staff.post("/second-factor", {"code": code(secret, runtime)}).status_code == 429
        assert enter(app, "admin")[1].status_code == 429
        clock.shift(15 * 60)
        staff, _ = enter(app, "admin")
        assert staff.post("/second-factor", {"code": code(secret, runtime)}).status_code == 303


@one_database
def test_five_wrong_passwords_lock_this_name_from_this_address_for_a_quarter_of_an_hour(
    app: Flask, runtime: Runtime
) -> None:
    create(runtime, "li.wei", "support")
    elsewhere: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": "10.0.0.9"}}
    with time_machine.travel(NOON, tick=False) as clock:
        assert [enter(app, "li.wei", "wrong")[1].status_code for _ in range(6)] == [401] * 5 + [429]
        assert enter(app, "li.wei")[1].status_code == 429
        assert enter(app, "li.wei", **elsewhere)[1].status_code == 303
        clock.shift(15 * 60)
        assert enter(app, "li.wei")[1].status_code == 303
    found = [line["action"] for line in runtime.ask(lambda c: list_audit(c, 100))]
    assert found == ["login", "login", "login.locked", *["login.failed"] * 5]


def test_session_ends_with_its_time_or_when_nobody_uses_it(app: Flask, runtime: Runtime) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        idle, used = log_in(app, runtime, "support"), log_in(app, runtime, "support")
        for _ in range(11):
            clock.shift(60 * 60)
            assert used.logged_in
            assert idle.get("/banner", headers={"HX-Request": "true"}).status_code in (200, 401)
        assert not idle.logged_in  # a page that looks again by itself is nobody's use
        clock.shift(60 * 60)
        assert not used.logged_in


# --- A proxy that knows who it is -----------------------------------------------------------------------


@one_database
def test_proxy_is_believed_who_it_is_only_from_its_address_and_only_where_that_is_set(
    make_runtime: Callable[..., Runtime],
) -> None:
    proxies = (ip_network("10.0.0.0/8"),)
    runtime = make_runtime(trusted_proxies=proxies, console_user_header="X-Remote-User")
    create(runtime, "boss", "admin")
    create(runtime, "gone", "admin")
    runtime.database.write(lambda c: changes.change_user(c, "gone", now=runtime.now(), disabled_at=runtime.now()))

    def status(services: Runtime, name: str, peer: str = "10.0.0.1", header: str = "X-Remote-User") -> int:
        more = {"environ_overrides": {"REMOTE_ADDR": peer}, "headers": {header: name}}
        return create_app(services).test_client().get("/console/users", **more).status_code

    assert status(runtime, "boss") == 200
    assert status(runtime, "boss", peer="192.0.2.1") == 303
    assert status(runtime, "boss", header="X-Other") == 303
    assert [status(runtime, name) for name in ("nobody", "gone", "", "BOSS")] == [303] * 4
    assert status(make_runtime(trusted_proxies=proxies), "boss") == 303
    assert status(make_runtime(console_user_header="X-Remote-User"), "boss") == 303


@one_database
def test_stranger_at_the_proxy_is_nobody_though_the_browser_holds_a_session(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime(trusted_proxies=(ip_network("127.0.0.1/32"),), console_user_header="X-Remote-User")
    staff = log_in(create_app(runtime), runtime, "support")
    assert staff.logged_in
    assert staff.get("/account", headers={"X-Remote-User": "nobody"}).status_code == 303
