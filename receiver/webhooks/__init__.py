"""Webhooks: at-least-once delivery of events to endpoints, in order per message, without delaying pushes."""
