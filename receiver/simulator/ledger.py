"""What the stand-in did: what it sent and refused, what it pushed, and what of that was acknowledged."""

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

PushKey = tuple[str, str, str, str, str]  # kind, task id, number as pushed, what it said, when (ISO 8601)


@dataclass(slots=True)
class Ledger:
    """Safe for many threads."""

    sent: dict[str, tuple[str, str]] = field(default_factory=dict)  # task id: (number, template id)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)  # (number, words)
    pushed: Counter[PushKey] = field(default_factory=Counter)  # requests that went out
    acked: Counter[PushKey] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, message: SimulatedMessage) -> None:
        """Note a message that was taken."""
        with self._lock:
            self.sent[message.task_id] = (message.mobile, message.template_id)

    def note_refused(self, mobile: str, words: str) -> None:
        """Note a message that was not."""
        with self._lock:
            self.refused[mobile, words] += 1

    def note_pushed(self, push: PlannedPush) -> None:
        """Note a push that goes out: from here on it may have arrived."""
        with self._lock:
            self.pushed[push.key] += 1

    def note_acked(self, push: PlannedPush) -> None:
        """Note that a push was acknowledged."""
        with self._lock:
            self.acked[push.key] += 1

    def summary(self) -> dict[str, int]:
        """Add it up."""
        with self._lock:
            return {
                "sent": len(self.sent),
                "refused": self.refused.total(),
                "pushed": self.pushed.total(),
                "acked": self.acked.total(),
            }

    def save(self, path: Path) -> None:
        """Write it down, to be checked later."""
        with self._lock:
            data: dict[str, Any] = {
                "sent": [[task_id, *rest] for task_id, rest in self.sent.items()],
                "refused": [[*key, count] for key, count in self.refused.items()],
                "pushed": [[*key, count, self.acked[key]] for key, count in self.pushed.items()],
            }
        path.write_text(json.dumps(data, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read one that was written down. Raises ReceiverError."""
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
            raise ReceiverError(f"{path}: not a ledger that `receiver simulate --ledger` has written") from None
        return ledger
