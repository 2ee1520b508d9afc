"""`run alarms`: notify when an incident begins, and when it ends."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from receiver.alerting.follow import IncidentState
from receiver.alerting.messages import write_incident
from receiver.alerting.run import NotifyResult, Watch
from receiver.cli.common import as_json, open_runtime, print_json
from receiver.core import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("alarms")
@click.option("--dry-run", is_flag=True, help="Print the notifications; send and save nothing.")
@click.option("--test", is_flag=True, help="Send a test to every alarm URL, and print each answer.")
@as_json
def alarms(dry_run: bool, test: bool, as_json: bool) -> None:
    """Check for incidents, and notify RECEIVER_ALARM_URLS when one begins and when it ends.

    Run it every minute on every node; incidents that all nodes share are sent by one of them. An incident begins when
    two checks in a row find it. Exit code 1 if a notification failed; the next check sends it again.

    \b
    Example (crontab):
      * * * * *  receiver run alarms
    """
    if dry_run and test:
        raise click.UsageError("--dry-run and --test do not go together")
    with open_runtime() as runtime:
        watch = Watch(runtime)
        if dry_run:
            _dry_run(watch, as_json=as_json)
            return
        results = _test(watch, as_json=as_json) if test else _check(watch, as_json=as_json)
    faults = [result.fault for result in results if result.fault is not None]
    for fault in faults:
        print(f"receiver: notification failed: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


def _check(watch: Watch, *, as_json: bool) -> Sequence[NotifyResult]:
    look = watch.look()
    if as_json:
        print_json(asdict(look))
        return look.notifications
    if look.skipped:
        print("another check of this node is running")
    elif not look.findings:
        print("no problems found")
    for finding in look.findings:
        print(f"problem: {finding.alarm}{f' ({finding.subject})' if finding.subject else ''}")
    for result in look.notifications:
        if result.fault is None:
            print(f"notified {result.target}: {result.name} {result.state}")
    return look.notifications


def _dry_run(watch: Watch, *, as_json: bool) -> None:
    messages = [
        write_incident(incident, IncidentState.FIRING, watch.place) for incident in watch.check_without_notifying()
    ]
    if as_json:
        print_json([{**message.fields, "text": message.text} for message in messages])
        return
    print("\n\n".join(message.text for message in messages) or "no problems found")


def _test(watch: Watch, *, as_json: bool) -> Sequence[NotifyResult]:
    results = watch.test()
    if not results:
        raise SettingsError("no alarm URLs; set RECEIVER_ALARM_URLS=dingtalk:https://…#SECRET,url:https://…")
    if as_json:
        print_json([asdict(result) for result in results])
        return results
    for result in results:
        if result.fault is None:
            print(f"notified {result.target}: {result.answer}")
    return results
