"""A clock that can be set for one process: a library that is loaded before its own. Only the time of day moves."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# libfaketime would do, but its version in Debian 12 makes Python's time.sleep fail where the monotonic clock is spared.
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile int64_t *skew;
__attribute__((constructor)) static void look(void) {
    int file = open(getenv("SKEW_FILE"), O_RDONLY);
    void *place = mmap(0, sizeof *skew, PROT_READ, MAP_SHARED, file, 0);
    if (place == MAP_FAILED) abort();
    skew = place;
    close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && skew) now->tv_sec += *skew;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    long failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed && now && skew) now->tv_sec += *skew;
    return failed;
}
time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
"""


class SkewedClock:
    """How far the clock of processes with this environment is off; it can be set while they run. Needs `cc`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "skew"
        self._library = directory / "skew.so"
        self.set(0)
        compiler = shutil.which("cc")
        if compiler is None:
            raise LookupError("no C compiler to build a clock with")
        command = [compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(self._library)]
        subprocess.run(command, input=_SOURCE, text=True, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with."""
        return {"LD_PRELOAD": str(self._library), "SKEW_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Put the clock so many seconds ahead of the machine's, or behind."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: it is mapped
            file.write(seconds.to_bytes(8, "little", signed=True))
