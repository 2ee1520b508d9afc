"""HTTP: the push endpoints, the query API and the staff console."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from receiver.runtime import Runtime

RUNTIME = "receiver.runtime"


def runtime() -> Runtime:
    """Return the runtime of the current application."""
    return cast("Runtime", current_app.extensions[RUNTIME])
