"""ClickHouse as the store past one machine: every host's agent writes to it, commands and pages read from it."""
