#!/usr/bin/env bash
# Restores a backup of receiver's PostgreSQL database into a server of its own, proves it, and removes that server again.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: rehearse-restore.sh BACKUP

  Restores what backup.sh has made, a .dump file or a .base directory, into a server in a temporary directory that only
  a socket in it leads to; runs `receiver db current` and `receiver verify` on it; says which push is its newest. Nothing
  else is touched. Exit code 0: this backup can be restored, and all in it agrees.

  PG_BIN       PostgreSQL's programs; else those of the backup's version under /usr/lib/postgresql, else those in PATH.
  RECEIVER     the program `receiver`, if not in PATH. Its settings should be the deployment's, RECEIVER_TIMEZONE above all.
  TMPDIR       where there is room for the whole database.
  BACKUP_ROLE  a role of the server that a .base is of, where it has neither postgres nor receiver.
  PG_USER      whom the server runs as when root starts this: postgres, else nobody.

Example: rehearse-restore.sh /srv/backup/receiver-20261126T030000Z.dump
TEXT
}

fail() {
    echo "rehearse-restore.sh: $1" >&2
    exit 1
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
[ $# -eq 1 ] || fail "give one backup; see --help"
backup=$(realpath -e -- "$1") || fail "$1 is not there"
receiver=${RECEIVER:-receiver}
command -v "$receiver" >/dev/null || fail "no program receiver; name it in RECEIVER"
[ -d "$backup" ] && [ ! -e "$backup/backup_manifest" ] && fail "$backup is no backup of backup.sh: no backup_manifest"

# PostgreSQL's programs, of the version of a physical backup.
if [ -z "${PG_BIN-}" ]; then
    version=
    [ ! -d "$backup" ] || version=$(cat "$backup/PG_VERSION")
    PG_BIN=$(find /usr/lib/postgresql -path "*/${version:-*}/bin/postgres" 2>/dev/null | sort -V | tail -n 1)
    PG_BIN=$(dirname "${PG_BIN:-$(command -v postgres || echo /missing/postgres)}")
fi
[ -x "$PG_BIN/postgres" ] || fail "no PostgreSQL server to restore into; install postgresql, or name PG_BIN"

# The server refuses to run as root, and a rehearsal needs no rights but its own.
as=()
if [ "$(id -u)" -eq 0 ]; then
    user=${PG_USER:-$(id -un postgres 2>/dev/null || echo nobody)}
    as=(runuser -u "$user" --)
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/receiver-rehearsal.XXXXXXXX")
cleanup() {
    if [ -s "$work/data/postmaster.pid" ]; then
        "${as[@]}" "$PG_BIN/pg_ctl" stop -D "$work/data" -m immediate -w >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/socket" "$work/receiver"
[ ${#as[@]} -eq 0 ] || chown "$user" "$work" "$work/socket"
cd "$work"
unset PGDATA PGHOST PGPORT PGUSER PGDATABASE PGOPTIONS PGPASSWORD

# Its own configuration: that of the old server names files, addresses and libraries of another machine.
cat >"$work/socket/postgresql.conf" <<TEXT
listen_addresses = ''
unix_socket_directories = '$work/socket'
port = 5432
hba_file = '$work/socket/pg_hba.conf'
ident_file = '$work/socket/pg_ident.conf'
fsync = off
max_wal_size = 4GB
max_connections = 200
TEXT
echo 'local all all trust' >"$work/socket/pg_hba.conf"
: >"$work/socket/pg_ident.conf"
start_server() {
    "${as[@]}" "$PG_BIN/pg_ctl" start -D "$work/data" -w -t 3600 -l "$work/socket/server.log" \
        -o "-c config_file=$work/socket/postgresql.conf" >/dev/null ||
        fail "the server does not start on it: $(tail -n 5 "$work/socket/server.log" | tr '\n' ' ')"
}
ask() { "$PG_BIN/psql" -X -A -t -q -v ON_ERROR_STOP=1 -h "$work/socket" -p 5432 "$@"; }

begun=$SECONDS
if [ -d "$backup" ]; then
    "$PG_BIN/pg_verifybackup" --quiet "$backup"
    cp -a "$backup" "$work/data"
    rm -f "$work/data/standby.signal" "$work/data/recovery.signal" "$work/data/postgresql.auto.conf"
    : >"$work/data/postgresql.auto.conf"
    chmod 700 "$work/data"
    [ ${#as[@]} -eq 0 ] || chown -R "$user" "$work/data"
    start_server
    # Of a whole server, the database that is receiver's; as a role that the backup brought along.
    owner=
    for name in ${BACKUP_ROLE:+"$BACKUP_ROLE"} postgres receiver; do
        if databases=$(ask -U "$name" -d template1 \
            -c 'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate' 2>/dev/null); then
            owner=$name
            break
        fi
    done
    [ -n "$owner" ] || fail "the backup has no role postgres or receiver; name one that it has in BACKUP_ROLE"
    database=
    while IFS= read -r name; do
        if [ "$(ask -U "$owner" -d "$name" -c "SELECT to_regclass('public.pushes') IS NOT NULL")" = t ]; then
            database=$name
        fi
    done <<<"$databases"
    [ -n "$database" ] || fail "no database in it has receiver's tables"
else
    "${as[@]}" "$PG_BIN/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C --no-instructions >/dev/null
    start_server
    owner=postgres database=receiver
    ask -U postgres -d postgres -c 'CREATE DATABASE receiver'
    # Roles are the server's, not the database's: a dump has none, and a rehearsal needs none.
    "$PG_BIN/pg_restore" --no-owner --no-privileges --exit-on-error --jobs=2 \
        -h "$work/socket" -p 5432 -U postgres -d receiver "$backup"
    ask -U postgres -d receiver -c ANALYZE
fi
echo "restored in $((SECONDS - begun)) s"

export RECEIVER_DATABASE_URL="postgresql://$owner@/$database?host=$work/socket&port=5432"
export RECEIVER_DATA_DIR=$work/receiver
"$receiver" db current
"$receiver" verify
newest=$(ask -U "$owner" -d "$database" -F ' received ' \
    -c "SELECT id, to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM pushes ORDER BY id DESC LIMIT 1")
gap=$(ask -U "$owner" -d "$database" \
    -c "SELECT date_trunc('second', now() - received_at) FROM pushes ORDER BY id DESC LIMIT 1")
echo "newest push: ${newest:-none}"
echo "pushes of the time since, ${gap:-unknown}, are not in this backup"
