"""Exporters: what the store has, sent to receivers elsewhere, at least once and in the store's order.

They run in a process of their own beside the agent (`service`), a thread for each feed. Nothing here is ever loaded
in a worker.
"""
