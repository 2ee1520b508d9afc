"""The standard metrics of processes (`process_…`), for the master and each serving process.

prometheus_client's own collector tells of the process that answers the scrape, whichever that is. Here each process
has its series, by the label `process`: `sum` gives the node's figure, except that processes share memory. A series
belongs to a slot (see `server/multiprocess_metrics.py`); where its process is replaced, its counter starts again at 0.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from receiver.observability.metrics import MetricDescription

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

MASTER = "master"
_SUFFIX = ".pid"
_PAGE_BYTES = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")
_LOADED_AT = time.time()


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process, as it noted itself at its start."""

    name: str  # `master`, or the number of its slot
    pid: int
    started_at: float


def note_process(directory: Path, name: str) -> None:
    """Note this process in the directory of metrics; without room there its figures are left out."""
    with suppress(OSError):
        (directory / f"{name}{_SUFFIX}").write_text(str(os.getpid()))


def drop_process(directory: Path, name: str) -> None:
    """Forget a process that has ended."""
    (directory / f"{name}{_SUFFIX}").unlink(missing_ok=True)


def noted_processes(directory: Path) -> Iterator[Process]:
    """Yield the noted processes."""
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with suppress(OSError, ValueError):  # it has just ended, or is writing its note
            yield Process(name=path.stem, pid=int(path.read_text()), started_at=path.stat().st_mtime)


class ProcessCollector(Collector):
    """The figures of one scrape. `directory`: where processes are noted; without any there is this one only."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield each metric; what the kernel does not tell of a process is left out."""
        alone = Process(name=MASTER, pid=os.getpid(), started_at=_LOADED_AT)
        noted = [] if self._directory is None else list(noted_processes(Path(self._directory)))
        figures = {process.name: _read(process) for process in noted or [alone]}
        for name, (kind, text) in _FAMILIES.items():
            family = kind(name, text, labels=["process"])
            for process, found in figures.items():
                if name in found:
                    family.add_metric([process], found[name])
            yield family


_FAMILIES: dict[str, tuple[type[CounterMetricFamily | GaugeMetricFamily], str]] = {
    "process_cpu_seconds_total": (CounterMetricFamily, "Processor time of the process, of user and system."),
    "process_resident_memory_bytes": (GaugeMetricFamily, "Resident memory; a sum counts what processes share twice."),
    "process_virtual_memory_bytes": (GaugeMetricFamily, "Virtual memory."),
    "process_open_fds": (GaugeMetricFamily, "Open file descriptors."),
    "process_max_fds": (GaugeMetricFamily, "Limit of open file descriptors."),
    "process_start_time_seconds": (GaugeMetricFamily, "When the process started, Unix time."),
}


def list_process_metrics() -> list[MetricDescription]:
    """Return every metric of a process."""
    kinds = {CounterMetricFamily: "counter", GaugeMetricFamily: "gauge"}
    return [MetricDescription(name, kinds[kind], ("process",), text) for name, (kind, text) in _FAMILIES.items()]


def _read(process: Process) -> dict[str, float]:
    """Return a process's figures; those of a process that has ended are missing."""
    place = Path(f"/proc/{process.pid}")
    found: dict[str, float] = {}
    with suppress(OSError):
        fields = (place / "stat").read_text().rpartition(")")[2].split()  # proc_pid_stat(5), from the third on
        found["process_cpu_seconds_total"] = (int(fields[11]) + int(fields[12])) / _TICKS
        found["process_virtual_memory_bytes"] = int(fields[20])
        found["process_resident_memory_bytes"] = int(fields[21]) * _PAGE_BYTES
        # Not from /proc/stat, which systemd's ProcSubset= hides.
        found["process_start_time_seconds"] = process.started_at
    with suppress(OSError):
        found["process_open_fds"] = sum(1 for _ in (place / "fd").iterdir())
        limits = (place / "limits").read_text()
        found["process_max_fds"] = float(limits.partition("Max open files")[2].split(maxsplit=1)[0])
    return found
