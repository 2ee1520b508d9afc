"""How log lines are written."""

from __future__ import annotations

from enum import StrEnum


class LogFormat(StrEnum):
    """The values of RECEIVER_LOG_FORMAT."""

    JSON = "json"
    ECS = "ecs"  # Elastic Common Schema
    OTEL = "otel"  # OpenTelemetry's data model for logs, and its semantic conventions
    CONSOLE = "console"  # for people
