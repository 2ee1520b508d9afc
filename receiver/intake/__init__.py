"""Intake of pushes: admission, batch writer, spool, drainer, replay."""
