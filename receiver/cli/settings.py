"""The settings of a command."""

from __future__ import annotations

import logging

from receiver.config import Settings, load_settings
from receiver.net.serving import as_served
from receiver.observability import configure_logging, get_logger

_log = get_logger(__name__)


def read_settings() -> Settings:
    """Return the settings, with the addresses of a running server. A command prints its success, and logs warnings."""
    configure_logging(logging.WARNING)
    settings = as_served(load_settings())
    warn_of_unknown(settings)
    return settings


def warn_of_unknown(settings: Settings) -> None:
    """Log each name that looks like a setting and is unknown."""
    for reason in settings.unknown:
        _log.warning("unknown setting", reason=reason)
