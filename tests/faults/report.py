"""What the faults cost, as a page that people read."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.bench.report import command_line, describe_machine
from tests.faults.cluster import POSTGRES_BIN
from tests.harness.nginx import find_nginx
from tests.harness.postgres_binaries import read_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.run import Account, Measured

_COLUMNS = (
    "fault",
    "lasted s",
    "acked",
    "… spooled",
    "refused",
    "longest refusal s",
    "slowest ack s",
    "acks again after s",
    "spools empty after s",
    "whole after s",
)
_SHOWN = 5


def render(measured: Sequence[Measured], account: Account, *, rate: float, workers: int) -> str:
    """Write the section: what was broken, the table, and the account."""
    setting = (
        f"nginx, two receivers of {workers} process{'es' * (workers > 1)}, PostgreSQL with a synchronous standby under "
        "Patroni and three of etcd, from the files in `deploy`, each in a network namespace of one machine; "
        f"{rate:g} pushes a second over TLS, one in ten a copy, one in ten a reply; a cut link loses every packet. "
        "*Refused*: pushes that met anything but an acknowledgement, by what they met first; a sender who pushes once "
        "has lost them. *Longest refusal*: of a push that is tried again every 100 ms, until it was taken. *Acks "
        "again*: from the blow until nothing is refused any more. *Spools empty* and *whole* (a primary with its "
        "synchronous standby): from the mending."
    )
    return "\n".join(
        [
            f"## Faults\n\n{setting}\n",
            f"{describe_machine(read_version(POSTGRES_BIN))} {_versions()}.\n",
            f"Command: `{command_line()}`.\n",
            "| " + " | ".join(_COLUMNS) + " |",
            "|---|" + "--:|" * 3 + "---|" + "--:|" * 5,
            *("| " + " | ".join(_row(fault)) + " |" for fault in measured),
            "",
            *_tell(account),
        ]
    )


def _row(fault: Measured) -> list[str]:
    refused = ", ".join(f"{count} × {what}" for what, count in fault.refused.most_common())
    return [
        fault.name,
        f"{fault.lasted:.1f}",
        f"{fault.acked:,}",
        f"{fault.spooled:,}",
        refused or "none",
        _seconds(fault.longest_refusal),
        f"{fault.slowest_ack:.2f}",
        f"{fault.acks_again:.1f}",
        _seconds(fault.drained),
        _seconds(fault.healthy),
    ]


def _seconds(value: float | None) -> str:
    return "not seen" if value is None else f"{value:.1f}"


def _tell(account: Account) -> list[str]:
    summary = (
        f"In the end {account.acked:,} acknowledged pushes: {len(account.missing)} missing, {len(account.wrong)} with "
        f"another number of copies than was pushed; {account.twice} more in the journal, of which no acknowledgement "
        "had come: pushes that nginx offered to the second receiver too, or whose answer was lost. "
        f"`receiver verify`: {'not clean' if account.unverified else 'clean'}."
    )
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
