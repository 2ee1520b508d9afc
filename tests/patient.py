"""`receiver` that waits for its database, however busy the machine is: for tests of anything but that wait.

Run as a file: what serves for a test has its working directory elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from receiver import runtime
from receiver.cli import main
from receiver.intake import recorder
from receiver.store import database

PATIENCE_SECONDS = 20.0
PATIENCES = (
    (runtime, "INTAKE_PATIENCE_SECONDS"),
    (recorder, "_SENDS_PATIENCE_SECONDS"),
    (recorder, "_ATTEMPT_PATIENCE_SECONDS"),
    (database, "_CONNECT_SECONDS"),
)

if __name__ == "__main__":
    for module, name in PATIENCES:
        setattr(module, name, PATIENCE_SECONDS)
    sys.argv[0] = str(Path(runtime.__file__).with_name("__main__.py"))  # as `python -m receiver` has it
    main()
