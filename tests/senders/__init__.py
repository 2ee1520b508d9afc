"""Real HTTP clients that nobody here wrote, pushing to a running `receiver serve`: `make test-senders`."""
