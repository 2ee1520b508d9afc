"""The faults, one after another: what is broken, for how long, and who mends it."""

from __future__ import annotations

import itertools
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.cluster import DATABASES, NODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.cluster import Cluster

_CUT_SECONDS = 15.0
_DARK_SECONDS = 10.0
_TAKEN_OVER_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: `strike` does it, lasts as long as it does, and returns when it is mended."""

    name: str
    strike: Callable[[Cluster], None]
    then_whole: bool = True  # goes on only when everything is as before, and not as soon as the spools are empty


def faults(*, short: bool = False) -> tuple[Fault, ...]:
    """List them in order; `short` only three of them, and a brief cut."""
    return _SHORT if short else _ALL


def faults_in_turn(nodes: int) -> tuple[Fault, ...]:
    """List those of a long run: a node, a database and a link in turn, until each of so many nodes died once."""
    victims = itertools.cycle(itertools.islice(NODES, nodes))
    databases = (
        Fault(name="kill -9 the primary's PostgreSQL", strike=_kill_postgres),
        Fault(name="kill -9 the primary's machine", strike=_kill_primary_machine),
        Fault(name="kill -9 the standby's PostgreSQL", strike=_kill_standby),
    )
    links = (("node1", "primary"), ("nginx", "node2"), ("primary", "standby"))
    return tuple(
        fault
        for victim, database, (one, other) in zip(victims, databases, links, strict=False)
        for fault in (
            Fault(name=f"kill -9 {victim}", strike=_kill_receiver(victim)),
            database,
            Fault(name=f"cut {one} – {other}", strike=_cut(one, other)),
        )
    )


def _kill_receiver(node: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.units[node].kill()


def _reload_nginx(cluster: Cluster) -> None:
    cluster.units["nginx"].signal(signal.SIGHUP)


def _restart_nginx(cluster: Cluster) -> None:
    cluster.units["nginx"].stop(signal.SIGQUIT)
    cluster.units["nginx"].start()


def _kill_postgres(cluster: Cluster) -> None:
    cluster.kill_postgres(_primary(cluster))


def _kill_standby(cluster: Cluster) -> None:
    cluster.kill_postgres(_standby(cluster))


def _kill_primary_machine(cluster: Cluster) -> None:
    """PostgreSQL and Patroni die, and stay away until the standby has taken over."""
    name = _primary(cluster)
    cluster.units[name].stop(signal.SIGKILL)
    cluster.kill_postgres(name)
    deadline = time.monotonic() + _TAKEN_OVER_SECONDS
    while cluster.primary() in (None, name) and time.monotonic() < deadline:
        time.sleep(0.1)
    cluster.units[name].start()


def _cut(one: str, *others: str, seconds: float = _CUT_SECONDS) -> Callable[[Cluster], None]:
    """Cut one host from others, or from what has the role of `primary` or `standby` now."""

    def strike(cluster: Cluster) -> None:
        names = {"primary": _primary(cluster), "standby": _standby(cluster)}
        with ExitStack() as cuts:
            for other in others:
                cuts.enter_context(cluster.net.cut(names.get(one, one), names.get(other, other)))
            time.sleep(seconds)

    return strike


def _fill_nodes(*nodes: str) -> Callable[[Cluster], None]:
    """Fill the disks of nodes, or of all, while no database is in reach, so that their spools cannot grow."""

    def strike(cluster: Cluster) -> None:
        with ExitStack() as broken:
            for node in cluster.nodes:
                for database in DATABASES:
                    broken.enter_context(cluster.net.cut(node, database))
            for node in nodes or cluster.nodes:
                broken.enter_context(cluster.disk_full(node))
            time.sleep(_DARK_SECONDS)

    return strike


def _fill_primary(cluster: Cluster) -> None:
    with cluster.disk_full(_primary(cluster)):
        time.sleep(2 * _CUT_SECONDS)


def _skew_clock(cluster: Cluster) -> None:
    """A receiver's clock goes an hour ahead, an hour behind, and right again, while it serves."""
    with cluster.own_clock("node2") as clock:
        for skew_seconds in (3600, -3600, 0):
            clock.set(skew_seconds)
            time.sleep(_CUT_SECONDS / 3)


def _primary(cluster: Cluster) -> str:
    deadline = time.monotonic() + _TAKEN_OVER_SECONDS
    while (name := cluster.primary()) is None:  # a busy one may have missed to answer
        if time.monotonic() > deadline:
            raise RuntimeError("there is no primary to break")
        time.sleep(0.1)
    return name


def _standby(cluster: Cluster) -> str:
    return next(name for name in DATABASES if name != _primary(cluster))


_ALL = (
    Fault(name="kill -9 node1", strike=_kill_receiver("node1")),
    Fault(name="kill -9 node2", strike=_kill_receiver("node2")),
    Fault(name="nginx reloaded", strike=_reload_nginx),
    Fault(name="nginx restarted", strike=_restart_nginx),
    Fault(name="kill -9 the primary's PostgreSQL", strike=_kill_postgres),
    Fault(name="cut nginx – node1", strike=_cut("nginx", "node1")),
    Fault(name="cut nginx – node2", strike=_cut("nginx", "node2")),
    Fault(name="cut node1 – primary", strike=_cut("node1", "primary")),
    Fault(name="cut node2 – both databases", strike=_cut("node2", "db1", "db2")),
    Fault(name="cut primary – standby", strike=_cut("primary", "standby")),
    Fault(name="cut primary – etcd", strike=_cut("primary", "dcs")),
    Fault(name="cut standby – etcd", strike=_cut("standby", "dcs")),
    Fault(name="cut primary – etcd and standby", strike=_cut("primary", "dcs", "standby")),
    Fault(name="kill -9 the primary's machine", strike=_kill_primary_machine),
    Fault(name="node1's disk full, databases cut", strike=_fill_nodes("node1")),
    Fault(name="every node's disk full, databases cut", strike=_fill_nodes()),
    Fault(name="primary's disk full", strike=_fill_primary),
    Fault(name="node2's clock off by an hour", strike=_skew_clock),
)

_SHORT = (
    Fault(name="kill -9 node1", strike=_kill_receiver("node1")),
    Fault(name="cut node1 – primary", strike=_cut("node1", "primary", seconds=5)),
    Fault(name="kill -9 the primary's machine", strike=_kill_primary_machine, then_whole=False),
)
