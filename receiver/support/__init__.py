"""Look-ups and answers for support staff."""
