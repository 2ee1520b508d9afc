"""What support staff look up, and what they are advised."""
