"""Tells own systems of everything that comes, at least once and in order for each message, without anybody waiting."""
