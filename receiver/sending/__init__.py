"""Sending through the platform, and recording what others sent."""
