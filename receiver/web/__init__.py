"""HTTP: the push endpoints, the query API, the operator's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from receiver.runtime import Runtime

RUNTIME = "receiver.runtime"


def runtime() -> Runtime:
    """The runtime of the application that answers the present request."""
    return cast("Runtime", current_app.extensions[RUNTIME])
