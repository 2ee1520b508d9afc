"""`receiver` that waits for its database, however busy the machine is, on a disk with room, however full the machine's.

For tests of anything but these.

Run as a file: what serves for a test has its working directory elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from receiver import runtime
from receiver.cli import main, serve
from receiver.db import engine
from receiver.sending import recorder
from receiver.server import Server, connections

DISK_WITH_ROOM = type(shutil.disk_usage("/"))(total=10**11, used=4 * 10**10, free=6 * 10**10)
PATIENCE_SECONDS = 20.0
PATIENCES = (
    (runtime, "INTAKE_PATIENCE_SECONDS"),
    (recorder, "_SENDS_PATIENCE_SECONDS"),
    (recorder, "_ATTEMPT_PATIENCE_SECONDS"),
    (engine, "_CONNECT_SECONDS"),
)


class BrieflyKeeping(Server):
    """`receiver serve` that ends idle connections early."""

    def load_config(self) -> None:
        super().load_config()
        self.cfg.set("keepalive", int(os.environ["TEST_KEEPALIVE"]))


def be_as_program(*, patient: bool) -> None:
    """Make this process the program that a test starts; `patient`: so, and as its environment says."""
    sys.argv[0] = str(Path(runtime.__file__).with_name("__main__.py"))  # as `python -m receiver` has it
    if not patient:
        return
    for module, name in PATIENCES:
        setattr(module, name, PATIENCE_SECONDS)
    setattr(shutil, "disk_usage", lambda _: DISK_WITH_ROOM)  # noqa: B010
    if "TEST_KEEPALIVE" in os.environ:
        setattr(serve, "Server", BrieflyKeeping)  # noqa: B010  (it is imported there, and not its own)
    if "TEST_REQUEST_SECONDS" in os.environ:
        setattr(connections, "_REQUEST_SECONDS", float(os.environ["TEST_REQUEST_SECONDS"]))  # noqa: B010


if __name__ == "__main__":
    be_as_program(patient=True)
    main()
