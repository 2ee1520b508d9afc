"""`send`, `balance` and `run`: requests to the platform, and tasks for a timer."""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

from receiver.cli.alarms import alarms
from receiver.cli.common import ACTOR, as_json, open_runtime, print_json, print_list
from receiver.cli.groups import CommandGroup
from receiver.cli.prune import run_prune
from receiver.core import ReceiverError, SettingsError, parse_mainland_mobile
from receiver.messages import balance as balances
from receiver.platform.client import check_send
from receiver.sending.service import CodeRequest, PlatformRefused

if TYPE_CHECKING:
    from receiver.runtime import Runtime


@click.command()
@click.argument("mobile")
@click.option("--template", required=True, metavar="ID", help="The platform's template id.")
@click.option("--code", required=True, help="2 to 8 digits; - reads them from standard input.")
@click.option("--account", help="Required if several are configured.")
@click.option("--reference", help="Your own id of the message.")
@as_json
def send(mobile: str, template: str, code: str, account: str | None, reference: str | None, as_json: bool) -> None:
    """Send a verification code through the platform, and record it.

    \b
    Example:
      receiver send 15080921090 --template 540 --code 1234
    """
    if code == "-":
        code = sys.stdin.readline().strip()
    number = parse_mainland_mobile(mobile)
    faults = check_send(mobile=number, template_id=template, code=code)
    if number is None or faults:
        raise ReceiverError("; ".join(f"{field}: {reason}" for field, reason in faults.items()))
    with open_runtime() as runtime:
        request = CodeRequest(
            account=_account(runtime, account),
            mobile=number,
            template_id=template,
            code=code,
            reference=reference,
        )
        sent = runtime.sender.send(request, caller=ACTOR)
        try:
            sent.require_accepted()
        except PlatformRefused as refused:
            raise ReceiverError(f"the platform refused: {refused} ({refused.meaning.advice})") from None
    task_id = sent.answer.task_id if sent.answer else None
    left = sent.answer.remain_point if sent.answer else None
    if as_json:
        print_json({"task_id": task_id, "message_id": sent.message_id and str(sent.message_id), "remain_point": left})
    else:
        spooled = "" if sent.message_id else "; recorded in the spool, since the database is unavailable"
        print(f"sent: task {task_id}, {'?' if left is None else left} messages left{spooled}")


def _account(runtime: Runtime, chosen: str | None) -> str:
    accounts = runtime.sender.accounts
    if not accounts:
        raise SettingsError("no credentials; set RECEIVER_PLATFORM_CREDENTIALS=account:appId:appKey")
    if chosen is None and len(accounts) > 1:
        raise ReceiverError(f"--account: choose one of {', '.join(accounts)}")
    if chosen is not None and chosen not in accounts:
        raise ReceiverError(f"--account: {chosen}: no credentials; configured: {', '.join(accounts)}")
    return chosen or accounts[0]


@click.command()
@click.option("--account", help="Only this account.")
@as_json
def balance(account: str | None, as_json: bool) -> None:
    """Query the platform for the messages left, and store the answer.

    \b
    Example:
      receiver balance
    """
    _read_balances(account, as_json=as_json)


@click.group(cls=CommandGroup)
def run() -> None:
    """Tasks for a timer: systemd, cron, or the like."""


run.add_command(alarms)
run.add_command(run_prune)


@run.command("balance")
@as_json
def run_balance(as_json: bool) -> None:
    """Store every account's balance, and log once a day if one is low (RECEIVER_BALANCE_LOW).

    \b
    Example (crontab):
      */10 * * * *  receiver run balance --json
    """
    _read_balances(None, as_json=as_json)


def _read_balances(account: str | None, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    with open_runtime() as runtime:
        accounts = account is None and runtime.sender.accounts
        for name in accounts or [_account(runtime, account)]:
            row: dict[str, Any] = {"account": name, "remain_point": None, "days_left": None, "error": None}
            try:
                reading = runtime.sender.read_balance(name)
                row["remain_point"] = reading.remain_point
                trend = runtime.ask(lambda c, name=name: balances.find_trend(c, name, now=runtime.now()))  # type: ignore[misc]
                row["days_left"] = trend.days_left and round(trend.days_left, 1)
            except ReceiverError as error:
                row["error"] = str(error)
            rows.append(row)
    columns = {"account": "account", "left": "remain_point", "days left": "days_left"}
    print_list(
        rows, {name: itemgetter(key) for name, key in columns.items()}, as_json=as_json, fields=dict, by_line=True
    )
    failed = [f"{row['account']}: {row['error']}" for row in rows if row["error"]]
    if failed:
        raise ReceiverError("; ".join(failed))
