#!/bin/sh
# Installs receiver from this bundle, without a network. Run it again with a newer bundle to upgrade.
#
#   ./install.sh              as root, on a machine with systemd: into /opt, with a user, settings and units
#   ./install.sh DIRECTORY    the program alone, into DIRECTORY
#
# Each version has a directory of its own, /opt/receiver-VERSION; /opt/receiver leads to the one that runs, so that one
# version back is one link. Settings and secrets that are there stay as they are.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}

sha256sum --check --quiet SHA256SUMS
wheel=$(ls receiver-*.whl)
version=${wheel#receiver-}
version=${version%%-*}
program=${1:-/opt/receiver-$version}

"$PYTHON" -m venv --clear "$program"
pip="$program/bin/pip --isolated --quiet --disable-pip-version-check install --no-index"
$pip --find-links wheels --require-hashes --requirement requirements.lock
$pip --no-deps "$wheel"
cp -R deploy "$program/deploy"
"$program/bin/receiver" --version
[ $# = 0 ] || exit 0

getent passwd receiver >/dev/null || \
    useradd --system --user-group --home-dir /var/lib/receiver --no-create-home --shell /usr/sbin/nologin receiver
install -d -m 0755 /etc/receiver
install -d -m 0700 /etc/receiver/secrets
install -d -m 0700 -o receiver -g receiver /var/backups/receiver
[ -e /etc/receiver/receiver.env ] || install -m 0644 deploy/env.example /etc/receiver/receiver.env
install -m 0755 deploy/bin/receiver /usr/local/bin/receiver
install -m 0644 deploy/systemd/* /etc/systemd/system/
ln -sfn "$program" /opt/receiver.new
mv -T /opt/receiver.new /opt/receiver
systemctl daemon-reload
echo "receiver $version is installed; what runs now goes on until: systemctl restart receiver"
