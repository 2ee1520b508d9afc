"""A local stand-in for the platform: its interfaces, and its pushes with all that has been seen to go wrong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from receiver.simulator.ledger import Ledger
from receiver.simulator.pusher import Pusher, PushTarget
from receiver.simulator.server import Platform, Rules, make_server
from receiver.simulator.traffic import Awkwardness, SimulatedMessage, is_early, plan

if TYPE_CHECKING:
    import ssl

__all__ = ["Awkwardness", "Ledger", "PushTarget", "Rules", "SimulatedMessage", "StandIn"]


class StandIn:
    """The stand-in: answers sends, and pushes what becomes of them."""

    def __init__(
        self,
        *,
        bind: tuple[str, int],
        rules: Rules,
        how: Awkwardness,
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
            on_refused=self.ledger.note_refused,
        )
        self._server = make_server(self.platform, bind, tls)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="platform", daemon=True)

    def __enter__(self) -> Self:
        """Begin to answer and to push."""
        self._thread.start()
        if self._pusher is not None:
            self._pusher.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take no more sends; make the pushes that are planned, unless something went wrong."""
        self._server.shutdown()
        self._server.server_close()
        if self._pusher is not None:
            if error[0] is not None:
                self._pusher.forget()
            self._pusher.drain()

    @property
    def waiting(self) -> int:
        """How many pushes are not made yet."""
        return 0 if self._pusher is None else self._pusher.waiting

    def forget(self) -> None:
        """Make none of the pushes that are planned."""
        if self._pusher is not None:
            self._pusher.forget()

    def add_made_up(self, messages: list[SimulatedMessage]) -> None:
        """Push for messages that nobody has sent through here."""
        for message in messages:
            self._sent(message)

    def _sent(self, message: SimulatedMessage) -> None:
        self.ledger.note_sent(message)
        if self._pusher is None:
            return
        planned = plan(message, self._seed, self._how)
        if planned and is_early(message, self._seed, self._how):
            self._pusher.push_now(planned.pop(0))
        for push in planned:
            self._pusher.add(push)
