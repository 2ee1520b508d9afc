#!/usr/bin/env bash
# pysqlite3 0.6.1 (wheel for Linux on x86-64, SQLite 3.53.4) in the place of Python's own sqlite3 module, as its
# documentation offers it: a cursor that has been read in part when its connection rolls back.
#
# One would guess that it goes on as with the module of the same Python. Since 3.11 that module lets a cursor be read to
# its end after commit and rollback alike. pysqlite3 does so after a commit; after a rollback it raises InterfaceError
# ("Cursor needed to be reset because of commit/rollback and can no longer be fetched from"), as modules did up to 3.10.
# So a program meets it that rolls back while it reads a long SELECT, such as after a row that it could not use, and
# then reads on.
#
# Seen on 2026-11-29 with Python 3.11.7: sqlite3 gives the rest after both; pysqlite3 after commit alone.
# Source: https://docs.python.org/3/whatsnew/3.11.html#sqlite3; the wheel's own module
# Exit code: 0 as described; 1 where that has changed; 2 where Python is older than 3.11.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || exit 2
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: pysqlite3==0.6.1
cat >"$place/try.py" <<'PYTHON'
import sqlite3
import sys

from pysqlite3 import dbapi2

seen = {}
for name, module in (("sqlite3", sqlite3), ("pysqlite3", dbapi2)):
    connection = module.connect(":memory:")
    connection.execute("CREATE TABLE rows (number)")
    connection.executemany("INSERT INTO rows VALUES (?)", [(number,) for number in range(10)])
    connection.commit()
    for ending in ("commit", "rollback"):
        cursor = connection.execute("SELECT number FROM rows")
        cursor.fetchone()
        connection.execute("UPDATE rows SET number = number")
        getattr(connection, ending)()
        try:
            seen[name, ending] = f"{len(cursor.fetchall())} more rows"
        except module.Error as error:
            seen[name, ending] = type(error).__name__
        print(f"{name}, after {ending}: {seen[name, ending]}")
rest = "9 more rows"
described = {
    ("sqlite3", "commit"): rest,
    ("sqlite3", "rollback"): rest,
    ("pysqlite3", "commit"): rest,
    ("pysqlite3", "rollback"): "InterfaceError",
}
sys.exit(seen != described)
PYTHON
"$place/venv/bin/python" "$place/try.py"
