"""`run alarms`: what is wrong, told once to whoever has to get up, and once more when it is over."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from receiver.alerting import IncidentState
from receiver.alerting.messages import write_incident
from receiver.alerting.run import NotifyResult, Watch
from receiver.cli.common import as_json, open_runtime, print_json
from receiver.core import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("alarms")
@click.option("--dry-run", is_flag=True, help="Say what would be told; tell nobody, keep nothing.")
@click.option("--test", is_flag=True, help="Tell every target that this is a test, and show what each answers.")
@as_json
def alarms(dry_run: bool, test: bool, as_json: bool) -> None:
    """Look at how it goes, and tell RECEIVER_ALARM_URLS of every incident: once, and once when it is over.

    For each node that serves, each minute; what all nodes share is told by one of them. What is wrong has to be so at
    two looks. Exit code 1 where a target could not be told; it is tried again at the next look.

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
        told = _test(watch, as_json=as_json) if test else _look(watch, as_json=as_json)
    faults = [one.fault for one in told if one.fault is not None]
    for fault in faults:
        print(f"receiver: not told: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


def _look(watch: Watch, *, as_json: bool) -> Sequence[NotifyResult]:
    look = watch.look()
    if as_json:
        print_json(asdict(look))
        return look.told
    if look.skipped:
        print("another look at this node is under way")
    elif not look.findings:
        print("nothing is wrong")
    for finding in look.findings:
        print(f"wrong: {finding.alarm}{f' ({finding.subject})' if finding.subject else ''}")
    for one in look.told:
        if one.fault is None:
            print(f"told {one.target}: {one.name} {one.state}")
    return look.told


def _dry_run(watch: Watch, *, as_json: bool) -> None:
    messages = [
        write_incident(incident, IncidentState.FIRING, watch.place) for incident in watch.look_without_telling()
    ]
    if as_json:
        print_json([{**message.fields, "text": message.text} for message in messages])
        return
    print("\n\n".join(message.text for message in messages) or "nothing is wrong")


def _test(watch: Watch, *, as_json: bool) -> Sequence[NotifyResult]:
    told = watch.test()
    if not told:
        raise SettingsError("nobody to tell; set RECEIVER_ALARM_URLS=dingtalk:https://…#SECRET,url:https://…")
    if as_json:
        print_json([asdict(one) for one in told])
        return told
    for one in told:
        if one.fault is None:
            print(f"told {one.target}: {one.answer}")
    return told
