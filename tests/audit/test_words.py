"""The audit log in the console: every action has words, and a number's entries are one click away."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import receiver
from receiver.app import create_app
from receiver.audit import write_audit
from receiver.web.console.audit_texts import ACTIONS
from tests.web.console.staff import Page, audit, log_in, one_database

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_WRITERS = {"audit", "audited", "audit_look_up", "_audit_numbers", "write_audit", "record", "_change"}
# What the code composes of two parts.
_COMPOSED = {
    "f'user.{action}'": {"user.password", "user.role", "user.accounts", "user.disable", "user.enable",
                         "user.reset_totp", "user.set_totp", "user.end_sessions"},
    "_ACTIONS[kind]": {"note.create", "case.handle", "case.reopen"},
    "f'{name}.look_up'": {"messages.look_up", "receipts.look_up"},
    "f'{kind.name}.look_up'": {"messages.look_up", "replies.look_up", "pushes.look_up"},
    "f'{name}.read'": {"messages.read", "receipts.read"},
    "f'{name}.export'": {"messages.export", "receipts.export", "replies.export"},
}  # fmt: skip


def written() -> set[str]:
    """The actions in all calls that write to the audit log."""
    found: set[str] = set()
    for path in Path(receiver.__file__).parent.rglob("*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [each for each in module.body if isinstance(each, ast.Assign)]
        tables = {ast.unparse(each.targets[0]): each.value for each in assigned}
        for call in ast.walk(module):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name not in _WRITERS:
                continue
            for part in call.args:
                found |= _COMPOSED.get(ast.unparse(part), set()) if isinstance(part, ast.Subscript) else set()
                if isinstance(part, ast.JoinedStr):
                    found |= _COMPOSED.get(ast.unparse(part), set())
                elif isinstance(part, ast.Subscript) and (table := tables.get(ast.unparse(part.value))):
                    assert isinstance(table, ast.Dict)
                    found |= {ast.literal_eval(value) for value in table.values}
                elif isinstance(part, ast.Constant) and isinstance(part.value, str) and "." in part.value:
                    found.add(part.value)
    return found


def test_every_action_that_is_written_has_words_and_no_other() -> None:
    plain = {"look_up", "login", "logout", "denied", "prune", "erase", "self_test", "audit.prune", "login.failed"}
    assert written() - ACTIONS.keys() == set()
    assert ACTIONS.keys() - written() - plain == set()


@one_database
def test_entries_are_words_and_lead_to_what_they_name(runtime: Runtime) -> None:
    staff = log_in(create_app(runtime), runtime, "admin")
    detail = {
        "message_id": 424,
        "reason": "caller asked",
        "in_full": True,
        "accounts": ["a", "b"],
        "filter": {"q": "x"},
    }
    runtime.database.write(
        lambda c: write_audit(c, at=runtime.now(), actor="user:li", action="number.reveal", detail=detail)
    )
    chinese = staff.page("/audit", headers={"Accept-Language": "zh-CN"})
    assert "查看了完整号码" in chinese.text
    assert "完整号码 是" in chinese.text
    assert 'href="/console/messages/424"' in chinese.html
    english = staff.page("/audit")
    assert "Revealed a full number" in english.text
    assert "Reason given caller asked" in english.text
    assert "Accounts a, b" in english.text
    assert "number.reveal</td>" not in english.html


@one_database
def test_all_entries_about_the_number_of_one_are_one_click_away(runtime: Runtime) -> None:
    staff = log_in(create_app(runtime), runtime, "admin")
    for number in ("15080921090", "15080921091"):
        runtime.audit("user:li", "look_up", mobile=number)
    hashed = runtime.mobile_hmac("15080921090")
    whole = staff.page("/audit")
    assert f'form="of-number" name="mobile_hmac" value="{hashed}"' in whole.html
    narrowed = Page(staff.post("/audit", {"mobile_hmac": hashed}).text)
    assert narrowed.html.count("Looked something up</td>") == 1
    assert hashed[:8] in narrowed.text
    assert audit(runtime)[-1] == ("user:admin", "audit.read", {"mobile_hmac": hashed})
    assert staff.post("/audit", {"mobile_hmac": "x"}).status_code == 422
