"""How many pushes it takes, next to the obvious ways to write it: `python -m tests.bench`."""
