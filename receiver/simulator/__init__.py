"""A local simulator of the platform: its interfaces, and its pushes with every known fault."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from receiver.simulator.ledger import Ledger
from receiver.simulator.pusher import Pusher, PushTarget
from receiver.simulator.server import Platform, Rules, make_server
from receiver.simulator.traffic import PushFaults, SimulatedMessage, is_early, plan

if TYPE_CHECKING:
    import ssl

__all__ = ["Ledger", "PushFaults", "PushTarget", "Rules", "SimulatedMessage", "Simulator"]


class Simulator:
    """Answers sends, and pushes their receipts and replies."""

    def __init__(
        self,
        *,
        bind: tuple[str, int],
        rules: Rules,
        how: PushFaults,
        target: PushTarget | None,
        seed: int,
        first_task_id: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ledger = Ledger()
        self._how = how
        self._seed = seed
        self._pusher = None if target is None else Pusher(target, self.ledger)
        self.platform = Platform(
            rules=rules,
            first_task_id=first_task_id if first_task_id is not None else (seed % 10**6 + 1) * 10**7,
            on_sent=self._sent,
            on_refused=self.ledger.add_refused,
        )
        self._server = make_server(self.platform, bind, tls)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="platform", daemon=True)

    def __enter__(self) -> Self:
        """Start to answer and to push."""
        self._thread.start()
        if self._pusher is not None:
            self._pusher.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop taking sends, and finish the planned pushes, unless an exception was raised."""
        self._server.shutdown()
        self._server.server_close()
        if self._pusher is not None:
            if error[0] is not None:
                self._pusher.cancel()
            self._pusher.drain()

    @property
    def waiting(self) -> int:
        """The number of pushes to come."""
        return 0 if self._pusher is None else self._pusher.waiting

    def cancel(self) -> None:
        """Drop the planned pushes."""
        if self._pusher is not None:
            self._pusher.cancel()

    def add_messages(self, messages: list[SimulatedMessage]) -> None:
        """Push for messages that were not sent through this simulator."""
        for message in messages:
            self._sent(message)

    def _sent(self, message: SimulatedMessage) -> None:
        self.ledger.add_sent(message)
        if self._pusher is None:
            return
        planned = plan(message, self._seed, self._how)
        if planned and is_early(message, self._seed, self._how):
            self._pusher.push_now(planned.pop(0))
        for push in planned:
            self._pusher.add(push)
