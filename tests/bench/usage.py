"""What a tree of processes uses, as /proc tells it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def list_tree(root: int) -> list[int]:
    """List the process and all that descend from it, as they are now; empty when it is gone."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [root] if _stat(root) else []
    for process in tree:
        tree += children.get(process, [])
    return tree


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended; one that nobody has waited for has."""
    fields = _stat(process)
    return bool(fields) and fields[0] != "Z"


def cpu_seconds(tree: list[int]) -> float:
    """Add up user and system time of these processes and of their ended children."""
    # utime, stime, cutime, cstime: what a child used before it ended is with its parent.
    ticks = sum(int(ticks) for process in tree if (fields := _stat(process)) for ticks in fields[11:15])
    return ticks / _TICKS_PER_SECOND


def peak_rss_bytes(tree: list[int]) -> int:
    """Add up the greatest resident size each of these processes has had; what they share counts in each."""
    total = 0
    for process in tree:
        with suppress(OSError):  # it may end at any moment
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def _stat(process: int) -> list[str]:
    # From the state on; the command's name before it may hold spaces and brackets.
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []
