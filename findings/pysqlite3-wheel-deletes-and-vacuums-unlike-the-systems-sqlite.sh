#!/usr/bin/env bash
# pysqlite3 0.6.1 (wheel for Linux on x86-64, SQLite 3.53.4) put in the place of Python's own sqlite3 module, as its
# documentation offers it (a drop-in replacement of the module in the standard library).
#
# One would guess that only the version of SQLite changes. Two promises change with it, both by options of its build:
#
# 1. Deleted rows stay in the file. Debian builds SQLite with SECURE_DELETE, so that its sqlite3 module overwrites what
#    is deleted; the wheel is built without, `PRAGMA secure_delete` is 0, and the bytes of a deleted row are found in the
#    file afterwards. `PRAGMA secure_delete=ON` on each connection brings it back. (That the system's own module
#    overwrites is shown only where its build says so: Debian, Ubuntu, Fedora, macOS.)
# 2. VACUUM takes memory as large as the database. The wheel is built with TEMP_STORE=3 (temporaries always in memory),
#    and `PRAGMA temp_store=FILE` is taken without an error and changes nothing: the peak of the process rises by more
#    than half of the file's size.
#
# Seen on 2026-11-29: secure_delete 0, the deleted text in the file; a VACUUM of 64 MB raises the peak by 60 MB or more.
# Source: the wheel's own `PRAGMA compile_options`; https://www.sqlite.org/compile.html#temp_store
# Exit code: 0 as described; 1 where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: pysqlite3==0.6.1
cat >"$place/try.py" <<'PYTHON'
import pathlib
import resource
import sys

from pysqlite3 import dbapi2 as sqlite

place = pathlib.Path(sys.argv[1])
print("SQLite", sqlite.sqlite_version)
word = "a-text-that-was-deleted-and-is-looked-for"
small = place / "small.db"
connection = sqlite.connect(small)
default = connection.execute("PRAGMA secure_delete").fetchone()[0]
connection.execute("CREATE TABLE replies (content TEXT)")
connection.executemany("INSERT INTO replies VALUES (?)", [(word,), ("another",)])
connection.commit()
connection.execute("DELETE FROM replies WHERE content = ?", (word,))
connection.commit()
connection.close()
left = word.encode() in small.read_bytes()
print("secure_delete by default:", default, "- deleted text still in the file:", left)

large = place / "large.db"
connection = sqlite.connect(large)
connection.execute("PRAGMA cache_size=-2000")
connection.execute("CREATE TABLE pushes (body BLOB)")
for _ in range(64):
    connection.execute("INSERT INTO pushes VALUES (randomblob(1000000))")
    connection.commit()
connection.execute("PRAGMA temp_store=FILE")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connection.execute("VACUUM")
risen = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
size = large.stat().st_size
print(f"file of {size / 1e6:.0f} MB, temp_store=FILE: VACUUM raised the peak of memory by {risen / 1e6:.0f} MB")
sys.exit(0 if default == 0 and left and risen > size / 2 else 1)
PYTHON
"$place/venv/bin/python" "$place/try.py" "$place"
