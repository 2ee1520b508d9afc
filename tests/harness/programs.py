"""Programs that a test needs and a machine may lack: the test is then left out, and the run's last lines say so."""

from __future__ import annotations

import os
import shutil

import pytest

# Also where the search path leaves out what is for administrators.
PLACES = f"{os.environ['PATH']}:/usr/sbin"


def require_program(name: str) -> str:
    """Return the path of a program, or leave the test out; under CI that fails."""
    path = shutil.which(name, path=PLACES)
    if path is None:
        pytest.skip(f"no {name}: .ci/run installs it")
    return path
