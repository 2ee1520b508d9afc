"""A disk whose fsync takes longer: a library that the PostgreSQL server loads before its own."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static void wait_first(void) { struct timespec t = {0, %d000000}; nanosleep(&t, 0); }
int fsync(int fd) { wait_first(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { wait_first(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


def build_slow_fsync(directory: Path, milliseconds: int) -> str:
    """Compile it into a directory that the server may read; give its path. Raises LookupError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LookupError("no C compiler to build the slow fsync with")
    library = directory / "slow_fsync.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_SOURCE % milliseconds, text=True, check=True)
    library.chmod(0o755)
    return str(library)
