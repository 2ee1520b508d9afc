"""Other hosts: what may be reached, what can be, and how it is spoken to."""
