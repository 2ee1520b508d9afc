"""The SMS platform: requests to it, and the pushes that it sends."""
