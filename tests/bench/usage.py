"""What a tree of processes uses, as /proc tells it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAPPING = re.compile(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )")
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


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a tree of processes holds in memory, in bytes."""

    pss: int  # each page once, however many of these processes share it
    rss: int  # a page counts in each process
    private_dirty: int  # pages that belong to one process and to no file
    processes: int


def memory(tree: list[int]) -> Memory:
    """Add up what these processes hold.

    PSS as it would be if nothing else ran: the kernel's figure also divides the pages of libraries among strangers that
    map the same files, and would change with them.
    """
    totals = dict.fromkeys(("Pss_Anon", "Pss_Shmem", "Rss", "Private_Dirty"), 0)
    files: dict[tuple[str, str], int] = {}  # bytes of each mapped piece of a file, where most of it is resident
    processes = 0
    for process in tree:
        with suppress(OSError):  # it may end at any moment
            sizes = _sizes(Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
            for name in totals:
                totals[name] += sizes[name]
            for piece, size in _resident_files(process):
                files[piece] = max(size, files.get(piece, 0))
            processes += 1
    return Memory(
        pss=totals["Pss_Anon"] + totals["Pss_Shmem"] + sum(files.values()),
        rss=totals["Rss"],
        private_dirty=totals["Private_Dirty"],
        processes=processes,
    )


def _resident_files(process: int) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield each mapped piece of a file, by its place, and how much of it is resident as the file has it."""
    for text in _MAPPING.split(Path(f"/proc/{process}/smaps").read_text())[1:]:
        head, *lines = text.splitlines()
        address, _, _, _, inode, *path = head.split(maxsplit=5)
        if inode != "0" and not path[0].startswith("/dev/shm"):  # that is memory: Pss_Shmem
            sizes = _sizes(lines)
            yield (address, inode), sizes["Rss"] - sizes["Anonymous"]


def _sizes(lines: list[str]) -> dict[str, int]:
    """Return the sizes of `/proc/PID/smaps`, in bytes, by their names."""
    found = (re.match(r"(\w+): +(\d+) kB", line) for line in lines)
    return {each[1]: int(each[2]) * 1024 for each in found if each}


def _stat(process: int) -> list[str]:
    # From the state on; the command's name before it may hold spaces and brackets.
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []
