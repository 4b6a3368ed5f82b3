"""KEEP: the arena files in which a worker leaves its records, and the reader of them."""
