"""The reading half's engine: drains the spool into the store."""
