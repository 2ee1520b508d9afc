"""Retention, erasure, verification, backup, and moving to another database or key."""
