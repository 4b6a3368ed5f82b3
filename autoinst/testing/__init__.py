"""What a program's own tests can ask: which jobs did this call make, in this process or in one started for the test.

with autoinst.testing.record("rules.yaml") as jobs:
shop.InvoiceMailer("mail").perform(11)
jobs.one(action="shop.InvoiceMailer#perform", queue="mail", status="ok")

done = autoinst.testing.run(["worker.py"], rules={"version": 1, "jobs": [{"function": "shop.send_email"}]})
assert done.returncode == 0
done.jobs.one(action="shop#send_email")
"""

from __future__ import annotations

from autoinst.testing.jobs import Jobs
from autoinst.testing.recording import record
from autoinst.testing.running import Run, run

__all__ = ["Jobs", "Run", "record", "run"]
