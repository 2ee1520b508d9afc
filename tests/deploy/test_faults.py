"""The short form of `python -m tests.faults`: all of `deploy` on one machine, and what dies in it loses nothing."""

from __future__ import annotations

import os

import pytest

from tests.faults.blows import faults
from tests.faults.cluster import Cluster, missing
from tests.faults.report import render
from tests.faults.run import run


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_node_link_and_primary_that_fail_in_turn_lose_no_acknowledged_push() -> None:
    if lacking := missing():
        pytest.skip(lacking)
    with Cluster(nodes=3) as cluster:
        before = cluster.primary()
        measured, account = run(cluster, faults(short=True), rate=100, quiet_seconds=1, tell=print)
        after = cluster.primary()
    print(render(measured, account, rate=100, nodes=3, workers=1, beside=os.getloadavg()[0]))
    assert account.ok, account
    assert {before, after} == {"db1", "db2"}
    assert all(fault.acked > 0 and fault.drained is not None for fault in measured), measured
