#!/bin/sh
# Makes receiver-VERSION-bundle.tar.gz: all that a machine like this one (Python version, libc, processor) needs to
# install receiver with every extra, without a network. `make bundle` calls it.
#
#   deploy/bundle.sh [DIRECTORY]      where the bundle goes
#
# PYTHON is one that has what requirements.lock names. EXTRAS=postgres: that extra alone.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
EXTRAS=${EXTRAS:-all}
into=${1:-dist}
version=$("$PYTHON" -c 'import receiver; print(receiver.__version__)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/receiver-$version

mkdir -p "$bundle/wheels" "$into"
"$PYTHON" deploy/lock.py "$EXTRAS" > "$bundle/requirements.lock"
"$PYTHON" -m pip download --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
    --requirement "$bundle/requirements.lock" --dest "$bundle/wheels"
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$bundle" .
"$PYTHON" -m tests.supply sbom "$bundle/requirements.lock" "$bundle/receiver.cdx.json" >&2
cp README.md CHANGELOG.md deploy/install.sh "$bundle"
find deploy -type f -print0 | xargs -0 cp --parents -t "$bundle"
(cd "$bundle" && find . -type f -print0 | sort -z | xargs -0 sha256sum) > "$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$bundle"
tar --sort=name --owner=0 --group=0 --numeric-owner -czf "$into/receiver-$version-bundle.tar.gz" -C "$work" "receiver-$version"
echo "$into/receiver-$version-bundle.tar.gz"
