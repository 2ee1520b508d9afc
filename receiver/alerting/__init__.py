"""The alarms: what is wrong, said once to whoever has to get up, and once more when it is over."""

from __future__ import annotations

from receiver.alerting.diagnosis import DiagnosisReason, Judgement, Situation, Verdict, judge
from receiver.alerting.figures import drop_mended, find_set_aside
from receiver.alerting.follow import Incident, IncidentState, PendingNotification, follow, follow_all, list_tellings
from receiver.alerting.incidents import SharedIncidents
from receiver.alerting.node_state import NodeIncidents, count_rises, open_node
from receiver.alerting.rules import (
    Alarm,
    BalanceLeft,
    Finding,
    HealthFigures,
    Rate,
    SetAsideRows,
    StoredFigures,
    Thresholds,
    hours_of,
    judge_all,
)

__all__ = [
    "Alarm",
    "BalanceLeft",
    "DiagnosisReason",
    "Finding",
    "HealthFigures",
    "Incident",
    "IncidentState",
    "Judgement",
    "NodeIncidents",
    "PendingNotification",
    "Rate",
    "SetAsideRows",
    "SharedIncidents",
    "Situation",
    "StoredFigures",
    "Thresholds",
    "Verdict",
    "count_rises",
    "drop_mended",
    "find_set_aside",
    "follow",
    "follow_all",
    "hours_of",
    "judge",
    "judge_all",
    "list_tellings",
    "open_node",
]
