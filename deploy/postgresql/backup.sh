#!/usr/bin/env bash
# Backs up receiver's PostgreSQL database into a new entry of a directory, checks it, and only then gives it its name.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: backup.sh [--physical] [--keep N] DIRECTORY

  Backs up the database of RECEIVER_DATABASE_URL while it is in use. Passwords: that URL, PGPASSWORD or ~/.pgpass.

  without     pg_dump: one file, DIRECTORY/receiver-TIME.dump. For a role that owns the tables; any newer server takes it.
  --physical  pg_basebackup: the whole server, DIRECTORY/receiver-TIME.base/. For a role with REPLICATION; with archived
              WAL it is where recovery to a point in time begins (runbook).
  --keep N    then remove all but the newest N of this kind that are in DIRECTORY.

  RECEIVER_DATA_DIR  where set, its alarms hear whether this went well: backup.sh.made and backup.sh.failed in it.

  PG_BIN      where pg_dump and the others are, if not in PATH. Their major version has to be the server's, or newer.

Example: RECEIVER_DATABASE_URL=postgresql://receiver@db/receiver backup.sh --keep 14 /srv/backup
TEXT
}

fail() {
    echo "backup.sh: $1" >&2
    exit 1
}

suffix=dump keep='' directory=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --physical) suffix=base ;;
    --keep)
        shift
        keep=${1-}
        [[ $keep =~ ^[1-9][0-9]*$ ]] || fail "--keep: give the number of backups that are to stay, 1 or more"
        ;;
    -*) fail "$1: no such option; see --help" ;;
    *)
        [ -z "$directory" ] || fail "give one directory; see --help"
        directory=$1
        ;;
    esac
    shift
done
[ -n "$directory" ] || fail "give the directory to back up to; see --help"

work=''
# However it ends: no draft stays, and the node hears of it.
finish() {
    local code=$? how=made
    [ -z "$work" ] || rm -rf "$work"
    [ $code = 0 ] || how=failed
    [ ! -d "${RECEIVER_DATA_DIR-}" ] || touch "$RECEIVER_DATA_DIR/backup.sh.$how" ||
        echo "backup.sh: the alarms of $RECEIVER_DATA_DIR will not know of this backup" >&2
}
trap finish EXIT

[ -n "${RECEIVER_DATABASE_URL-}" ] || fail "set RECEIVER_DATABASE_URL to the database to back up"
[ -z "${PG_BIN-}" ] || PATH=$PG_BIN:$PATH
umask 077
mkdir -p "$directory"

# Nobody is to see a password in the list of processes: libpq takes it from a file of its own.
work=$(mktemp -d "$directory/.receiver-XXXXXXXX.partial")
url=$RECEIVER_DATABASE_URL
if [[ $url =~ ^([a-z+]+://[^:/@]+):([^@]*)@(.*)$ ]]; then
    url="${BASH_REMATCH[1]}@${BASH_REMATCH[3]}"
    PGPASSWORD=$(printf '%b' "${BASH_REMATCH[2]//%/\\x}")
    export PGPASSWORD
fi

final=$directory/receiver-$(date -u +%Y%m%dT%H%M%SZ).$suffix
[ ! -e "$final" ] || fail "$final exists already; wait a second"
if [ $suffix = dump ]; then
    pg_dump --format=custom --no-password --dbname="$url" --file="$work/backup"
    # Its table of contents can be read, and names the tables that matter.
    pg_restore --list "$work/backup" >"$work/list"
    for table in pushes messages receipts replies alembic_version; do
        grep -q " TABLE DATA public $table " "$work/list" || fail "the dump has no table $table; is that receiver's database?"
    done
else
    pg_basebackup --no-password --dbname="$url" --pgdata="$work/backup" --wal-method=stream --checkpoint=fast
    pg_verifybackup --quiet "$work/backup"
fi
sync -f "$work/backup"
mv -T "$work/backup" "$final"
sync -f "$directory"
echo "$final"

if [ -n "$keep" ]; then
    # Only what has our name, and only the oldest of it.
    find "$directory" -maxdepth 1 -regextype posix-extended \
        -regex ".*/receiver-[0-9]{8}T[0-9]{6}Z\.$suffix" -print0 | sort -z | head -z -n "-$keep" |
        while IFS= read -r -d '' old; do
            rm -rf -- "$old"
            echo "removed: $old"
        done
fi
