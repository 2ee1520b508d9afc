"""Intake of pushes: admission, batch writer, spool, drainer, replay."""

from __future__ import annotations

from receiver.intake.admission import (
    PUSH_MAX_BYTES,
    Admission,
    BrokenBody,
    Probe,
    PushRequest,
    Refusal,
    Refused,
    client_address,
    within,
)
from receiver.intake.batch_writer import Acknowledged, BatchWriter
from receiver.intake.drainer import Drainer
from receiver.intake.push_path import PUSH_PATH, PushPath, is_push_path, read_push_path
from receiver.intake.replay import replay_push
from receiver.intake.secret_changes import SHOWN_CHARS, SecretChange, plan_removal, plan_rotation, shown
from receiver.intake.secret_usage import UNUSED_FOR, NewUses, SecretUse, find_uses, save_uses, write_uses
from receiver.intake.secrets import PushSecret, PushSecrets
from receiver.intake.sources import READ_MAX_PUSHES, find_sources
from receiver.intake.spool import SPOOL_DIR, Spool, SpoolState, copy_spool, seconds_left, spool_state
from receiver.intake.spool_records import Damage, Record, SpooledAttempt, SpooledSends, count_frames, frame, read_file

__all__ = [
    "PUSH_MAX_BYTES",
    "PUSH_PATH",
    "READ_MAX_PUSHES",
    "SHOWN_CHARS",
    "SPOOL_DIR",
    "UNUSED_FOR",
    "Acknowledged",
    "Admission",
    "BatchWriter",
    "BrokenBody",
    "Damage",
    "Drainer",
    "NewUses",
    "Probe",
    "PushPath",
    "PushRequest",
    "PushSecret",
    "PushSecrets",
    "Record",
    "Refusal",
    "Refused",
    "SecretChange",
    "SecretUse",
    "Spool",
    "SpoolState",
    "SpooledAttempt",
    "SpooledSends",
    "client_address",
    "copy_spool",
    "count_frames",
    "find_sources",
    "find_uses",
    "frame",
    "is_push_path",
    "plan_removal",
    "plan_rotation",
    "read_file",
    "read_push_path",
    "replay_push",
    "save_uses",
    "seconds_left",
    "shown",
    "spool_state",
    "within",
    "write_uses",
]
