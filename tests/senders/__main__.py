"""`python -m tests.senders`: install what the clients need from Debian, as root, and say what stays out."""

from __future__ import annotations

import os
import subprocess

from tests.senders.clients import CLIENTS


def main() -> None:
    """Install each client's missing packages by itself, so that one that is nowhere keeps out no other."""
    lacking = [client for client in CLIENTS if client.lacks]
    if lacking and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        for client in lacking:
            _install(client.lacks)
    for client in CLIENTS:
        if client.lacks:
            print(f"left out: {client.name}, for want of {' '.join(client.lacks)}")


def _install(packages: list[str]) -> None:
    if not packages:
        return  # what another client needed too
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *dict.fromkeys(packages)]
    subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=False)


if __name__ == "__main__":
    main()
