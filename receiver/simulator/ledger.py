"""The simulator's record of sends, refusals, pushes and acknowledgements."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver.core import ReceiverError

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.simulator.traffic import PlannedPush, SimulatedMessage

PushKey = tuple[str, str, str, str, str]  # kind, task id, number as pushed, status or content, time (ISO 8601)


@dataclass(slots=True)
class Ledger:
    """The record of one run. Safe for many threads."""

    sent: dict[str, tuple[str, str]] = field(default_factory=dict)  # task id: (number, template id)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)  # (number, words)
    pushed: Counter[PushKey] = field(default_factory=Counter)  # requests that went out
    acked: Counter[PushKey] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_sent(self, message: SimulatedMessage) -> None:
        """Record a send that was accepted."""
        with self._lock:
            self.sent[message.task_id] = (message.mobile, message.template_id)

    def add_refused(self, mobile: str, words: str) -> None:
        """Record a send that was refused."""
        with self._lock:
            self.refused[mobile, words] += 1

    def add_pushed(self, push: PlannedPush) -> None:
        """Record a push before its request: from then on it may have arrived."""
        with self._lock:
            self.pushed[push.key] += 1

    def add_acked(self, push: PlannedPush) -> None:
        """Record an acknowledgement of a push."""
        with self._lock:
            self.acked[push.key] += 1

    def summary(self) -> dict[str, int]:
        """Return the totals."""
        with self._lock:
            return {
                "sent": len(self.sent),
                "refused": self.refused.total(),
                "pushed": self.pushed.total(),
                "acked": self.acked.total(),
            }

    def save(self, path: Path) -> None:
        """Write it to a file, for a later check."""
        with self._lock:
            data: dict[str, Any] = {
                "sent": [[task_id, *rest] for task_id, rest in self.sent.items()],
                "refused": [[*key, count] for key, count in self.refused.items()],
                "pushed": [[*key, count, self.acked[key]] for key, count in self.pushed.items()],
            }
        path.write_text(json.dumps(data, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Return the ledger of a file. Raises ReceiverError."""
        try:
            data = json.loads(path.read_text())
            ledger = cls(sent={task_id: (mobile, template) for task_id, mobile, template in data["sent"]})
            for mobile, words, count in data["refused"]:
                ledger.refused[mobile, words] = count
            for *key, pushed, acked in data["pushed"]:
                kind, task_id, mobile, said, at = key
                ledger.pushed[kind, task_id, mobile, said, at] = pushed
                ledger.acked[kind, task_id, mobile, said, at] = acked
        except (OSError, ValueError, KeyError, TypeError):
            raise ReceiverError(f"{path}: not a ledger of `receiver simulate --ledger`") from None
        return ledger
