"""WHEN: the current transaction, its events, and the notifications that feed it."""
