"""The rules for module `work` of the tests in which jobs take turns: greenlets, tasks and threads."""

from __future__ import annotations

RULES = """
version: 1
packs: [none]
jobs:
  - module: work
    functions: ["job*"]
    payload: {args: "${args}"}
events:
  - {function: work.step, name: step.work, title: "${label}"}
"""
