"""Alarms: rules, incidents, and notifications at the start and end of each incident."""
