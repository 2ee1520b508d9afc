"""What is found after the power failed, as a page that people read."""

from __future__ import annotations

import platform
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.report import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.power_loss.run import Tally

_COLUMNS = (
    "recorded",
    "images",
    "looked for",
    "missing",
    "images that lack any",
    "database damaged",
    "started, unfit, set aside",
    "without syncs, images that lack any",
)


def render(tallies: Sequence[Tally]) -> str:
    """Write the section: what was done, and the table."""
    setting = (
        "A running receiver with its embedded database is recorded: every write, sync and change of names below its "
        "data directory, and every acknowledgement. Then the power fails at many places of that record, and for each "
        "the disk is built in the forms in which it may be found: of what was not synced nothing, everything, some "
        "writes, some sectors of 512 bytes, the later half, or sizes without data; names by POSIX, where an entry is "
        "durable once its directory was synced, and as ext4 and xfs keep them, in their order. Each image is opened as "
        "a restart would; every push acknowledged before must be in journal or spool. *Looked for*: pushes, added up "
        "over images. *Started*: images that the product itself went on with: all is kept, it takes a push, and "
        "`receiver verify` is clean; *unfit*: those where not; *set aside*: those where half a write of the spool, "
        "which nobody was told of, is kept as `*.damaged` for a person (until whose look `verify` names it). *Without "
        "syncs*: the control, as if none had ever happened."
    )
    return "\n".join(
        [
            f"## Power loss\n\n{setting}\n",
            f"{_setup(tallies)}\n",
            f"Command: `{command_line()}`.\n",
            "| " + " | ".join(_COLUMNS) + " |",
            "|---|" + "--:|" * (len(_COLUMNS) - 1),
            *("| " + " | ".join(_row(tally)) + " |" for tally in tallies),
        ]
    )


def _row(tally: Tally) -> list[str]:
    return [
        f"{tally.scenario.name}: {tally.scenario.told}",
        f"{tally.images:,}",
        f"{tally.looked_for:,}",
        f"{tally.missing:,}",
        f"{tally.lacking:,}",
        f"{len(tally.damaged):,}",
        f"{tally.started}, {len(tally.unfit)}, {tally.set_aside}",
        "" if tally.control is None else f"{tally.control.lacking:,} of {tally.control.images:,}",
    ]


def _setup(tallies: Sequence[Tally]) -> str:
    a_minute = 60 * sum(tally.images for tally in tallies) / max(sum(tally.seconds for tally in tallies), 0.001)
    return (
        f"Looked at {datetime.now(UTC):%Y-%m-%d}, {a_minute:,.0f} images a minute, Python {platform.python_version()}; "
        f"images opened with SQLite {sqlite3.sqlite_version}."
    )
