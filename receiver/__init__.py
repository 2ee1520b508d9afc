"""A callback receiver for an SMS platform: keeps every push, answers what became of a message."""

__version__ = "0.1.0"
