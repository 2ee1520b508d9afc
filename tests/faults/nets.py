"""Machines of one's own: network namespaces on one switch, whose wires can be cut. Needs root, `ip` and `nft`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine of the net: a network namespace, nothing else; files and processes are everybody's."""

    name: str
    namespace: str
    addresses: tuple[str, ...]

    def command(self, *arguments: str) -> list[str]:
        """Give a command as it is run there. The process is the command's own: `ip` becomes it."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread that is there: the sockets that it makes are."""
        results: list[T] = []
        errors: list[BaseException] = []

        def there() -> None:
            try:
                with Path(f"/run/netns/{self.namespace}").open() as namespace:
                    if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")
                results.append(work())
            except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
                errors.append(error)

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


class Net:
    """Hosts on one switch, from entering the context to leaving it. `hosts`: each one's addresses, with /24."""

    def __init__(self, hosts: Mapping[str, Sequence[str]]) -> None:
        self._tag = f"receiver-{os.getpid()}"
        self._switch = f"{self._tag}-switch"
        self.hosts = {
            name: Host(name=name, namespace=f"{self._tag}-{name}", addresses=tuple(addresses))
            for name, addresses in hosts.items()
        }
        self._cuts: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self._switch, *(host.namespace for host in self.hosts.values())):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @contextmanager
    def cut(self, one: str, other: str) -> Iterator[None]:
        """Lose every packet between two hosts; nobody is told."""
        pair = (one, other)
        self._cuts.append(pair)
        self._lose_packets()
        try:
            yield
        finally:
            self._cuts.remove(pair)
            self._lose_packets()

    def _lose_packets(self) -> None:
        rules = ["flush chain bridge cuts forward"]
        for ends in self._cuts:
            for source, target in (ends, ends[::-1]):
                rules += [
                    f"add rule bridge cuts forward ip saddr {here} ip daddr {there} drop"
                    for here in self.hosts[source].addresses
                    for there in self.hosts[target].addresses
                ]
        self._nft("\n".join(rules))

    def _make(self) -> None:
        for name in (self._switch, *(host.namespace for host in self.hosts.values())):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts.values()):
            port = f"port{number}"
            wire = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace]
            _run("ip", "-n", self._switch, *wire)
            _run("ip", "-n", self._switch, "link", "set", port, "master", "br0", "up")
            for address in host.addresses:
                _run("ip", "-n", host.namespace, "address", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", host.namespace, "link", "set", "eth0", "up")
        self._nft("add table bridge cuts\nadd chain bridge cuts forward { type filter hook forward priority 0; }")

    def _nft(self, script: str) -> None:
        _run("ip", "netns", "exec", self._switch, "nft", "-f", "-", given=script)


def _run(*command: str, given: str | None = None) -> None:
    done: Any = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
