"""What the faults cost, as a page that people read."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from tests.bench.report import command_line, describe_machine
from tests.faults.client import IN_FLIGHT_MAX
from tests.faults.cluster import POSTGRES_BIN
from tests.faults.run import Measured
from tests.harness.nginx import find_nginx
from tests.harness.postgres_binaries import read_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.run import Account, Full

_COLUMNS = (
    "fault",
    "lasted s",
    "acked",
    "… spooled",
    "not sent",
    "refused",
    "longest refusal s",
    "slowest ack s",
    "acks again after s",
    "spools empty after s",
    "whole after s",
)
_SHOWN = 5


def render(
    measured: Sequence[Measured],
    account: Account,
    *,
    rate: float,
    nodes: int,
    workers: int,
    beside: float,
    full: Full | None = None,
) -> str:
    """Write the section: what was broken, the table, and the account.

    `full`: what the rate is half of; None: nothing. `beside`: the load average of other work.
    """
    half = (
        ""
        if full is None
        else f" (half of the {full.rate:,.0f} that {full.clients} clients reached before, each waiting for its answer)"
    )
    beside_it = f"Load average of other work on these cores, before the start: {beside:.1f}."
    setting = (
        f"nginx, {nodes} receivers of {workers} process{'es' * (workers > 1)}, PostgreSQL with a synchronous standby "
        "under Patroni and three of etcd, from the files in `deploy`, each in a network namespace of one machine; "
        f"{rate:,.0f} pushes a second{half} over TLS, one in ten a copy, one in ten a reply; a cut link loses every "
        "packet. "
        f"*Not sent*: by the client, which shares the cores, where {IN_FLIGHT_MAX:,} were in flight. "
        "*Refused*: pushes that met anything but an acknowledgement, by what they met first; a sender who pushes once "
        "has lost them. *Longest refusal*: of a push that is tried again every 100 ms, until it was taken. *Acks "
        "again*: from the blow until nothing is refused any more. *Spools empty* and *whole* (a primary with its "
        "synchronous standby): from the mending."
    )
    return "\n".join(
        [
            f"## Faults\n\n{setting}\n",
            f"{describe_machine(read_version(POSTGRES_BIN))} {_versions()}. {beside_it}\n",
            f"Command: `{command_line()}`.\n",
            "| " + " | ".join(_COLUMNS) + " |",
            "|---|" + "--:|" * 4 + "---|" + "--:|" * 5,
            *("| " + " | ".join(_row(fault)) + " |" for fault in [*measured, _worst(measured)]),
            "",
            *_tell(account, full),
        ]
    )


def _worst(measured: Sequence[Measured]) -> Measured:
    """Give all faults as one: sums of what was counted, and the longest of each time."""

    def longest(values: Iterable[float | None]) -> float | None:
        seen = list(values)
        return None if None in seen else max((value for value in seen if value is not None), default=0.0)

    return Measured(
        name=f"all {len(measured)}: sums, longest times",
        lasted=max(fault.lasted for fault in measured),
        acked=sum(fault.acked for fault in measured),
        spooled=sum(fault.spooled for fault in measured),
        not_sent=sum(fault.not_sent for fault in measured),
        refused=sum((fault.refused for fault in measured), Counter()),
        longest_refusal=longest(fault.longest_refusal for fault in measured),
        slowest_ack=max(fault.slowest_ack for fault in measured),
        acks_again=max(fault.acks_again for fault in measured),
        drained=longest(fault.drained for fault in measured),
        healthy=longest(fault.healthy for fault in measured),
    )


def _row(fault: Measured) -> list[str]:
    refused = ", ".join(f"{count} × {what}" for what, count in fault.refused.most_common())
    return [
        fault.name,
        f"{fault.lasted:.1f}",
        f"{fault.acked:,}",
        f"{fault.spooled:,}",
        f"{fault.not_sent:,}",
        refused or "none",
        _seconds(fault.longest_refusal),
        f"{fault.slowest_ack:.2f}",
        f"{fault.acks_again:.1f}",
        _seconds(fault.drained),
        _seconds(fault.healthy),
    ]


def _seconds(value: float | None) -> str:
    return "not seen" if value is None else f"{value:.1f}"


def _tell(account: Account, full: Full | None) -> list[str]:
    summary = (
        f"In the end {account.acked:,} acknowledged pushes: {len(account.missing)} missing, {len(account.wrong)} with "
        f"another number of copies than was pushed; {account.twice} more in the journal, of which no acknowledgement "
        "had come: pushes that nginx offered to another receiver too, or whose answer was lost. "
        f"{account.sent_again} went out once more on a new connection, as nginx ended the kept one in that moment. "
        f"`receiver verify`: {'not clean' if account.unverified else 'clean'}."
    )
    if full is not None:
        shares = ", ".join(f"{name} {used:.0f}" for name, used in full.cpu_us.items())
        summary += f" Processor time of a push at {full.rate:,.0f} a second, in µs: {shares}."
    lines = [summary]
    for what, names in (("Missing", account.missing), ("Wrong", account.wrong)):
        if names:
            lines += ["", f"{what}: {', '.join(names[:_SHOWN])}{' …' * (len(names) > _SHOWN)}"]
    return lines if not account.unverified else [*lines, "", "```", account.unverified, "```"]


def _versions() -> str:
    patroni = _said("patroni", "--version").split()[-1]
    etcd = _said("etcd", "--version").split()[2]
    nginx = _said(find_nginx() or "nginx", "-v").rpartition("/")[2]
    return f"Patroni {patroni}, etcd {etcd}, nginx {nginx.split()[0]}"


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
