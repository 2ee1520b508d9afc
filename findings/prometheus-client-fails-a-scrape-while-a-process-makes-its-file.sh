#!/usr/bin/env bash
# prometheus_client 0.26.0, multiprocess mode: a scrape while another process, just started, makes its first metric.
#
# One would guess that the collector leaves out a file that has nothing yet, as it leaves out a gauge's file that has
# just gone. A new process opens its file first and gives it a size afterwards; a collector that reads in between raises
# struct.error ("unpack_from requires a buffer of at least 4 bytes"), and the whole scrape fails with the figures of all
# processes. So /metrics of a server whose workers are renewed under traffic answers 500 now and then. A file that has
# its size before it has its name is read without fail.
#
# Seen on 2026-12-01 with Python 3.11.7, on two cores: within 1,500 starts of a process some twenty scrapes failed; none
# did where each file was there, of full size, before its process.
# Source: prometheus_client/mmap_dict.py and multiprocess.py of that version
# Exit code: 0 as described; 1 where no scrape failed, or one did with the files made before.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: prometheus_client==0.26.0
cat >"$place/try.py" <<'PYTHON'
import collections
import os
import struct
import sys
import tempfile

STARTS = 1500


def scrape_while_processes_start(directory, made_before):
    from prometheus_client import CollectorRegistry, Counter, values
    from prometheus_client.multiprocess import MultiProcessCollector

    running = os.fork()
    if running == 0:
        for number in range(STARTS):
            path = os.path.join(directory, f"counter_{number}.db")
            if made_before:
                with open(f"{path}.new", "wb") as file:
                    file.truncate(1 << 16)
                os.rename(f"{path}.new", path)
            if os.fork() == 0:
                values.ValueClass = values.MultiProcessValue(lambda: number)
                Counter("jobs", "Jobs.", registry=CollectorRegistry()).inc()
                os._exit(0)
            os.wait()
        os._exit(0)
    seen = collections.Counter()
    while os.waitpid(running, os.WNOHANG)[0] == 0:
        try:
            list(MultiProcessCollector(CollectorRegistry()).collect())
            seen["answered"] += 1
        except struct.error:
            seen["struct.error"] += 1
    return seen


failed = {}
for made_before in (False, True):
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        seen = scrape_while_processes_start(directory, made_before)
        failed[made_before] = seen["struct.error"]
        print(f"files made {'before' if made_before else 'by'} the process: {dict(seen)}")
sys.exit(not failed[False] or failed[True] > 0)
PYTHON
"$place/venv/bin/python" "$place/try.py"
