"""For tests/test_delayed_job.py: rows of Delayed Job's table that no Rails wrote, and what is recorded of each.

Every row has its number as its id; the sender's output says which row that is, where the database takes it.
"""

from __future__ import annotations

# Each goes into the table once, with a column that is as it should not be, or a handler.
SEND = r'''
import sys
from database import *
from mangle import LARGE

execute(f"CREATE TABLE delayed_jobs ({COLUMNS.format(id=id_column)})")
JOB = "--- !ruby/struct:NewsletterJob\ntext: ok\n"
METHOD = """--- !ruby/object:Delayed::PerformableMethod
object: !ruby/ActiveRecord:User
  attributes:
    id: 7
method_name: :tell
args:
- %s
"""
JUNK = (None, 7, "\u00e9", b"\xff\xfe", 1.5, -1, "9" * 400, "")
COLUMNS_READ = ("handler", "attempts", "priority", "run_at", "queue")
id = 0

def put(label, handler=JOB, **columns):
    global id
    id += 1
    row = {"id": id, "handler": handler, "attempts": 1, "priority": id, "run_at": now(-5), "queue": "mail",
           "created_at": now(-5), "updated_at": now(-5), **columns}
    try:
        execute(f"INSERT INTO delayed_jobs ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})", *row.values())
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
    else:
        print(id, label)

put("good")
put("method", METHOD % "ok")
whole = METHOD % "ok"
for number, handler in enumerate((
    "{no YAML: [", "--- !ruby/obj", "--- !ruby/object:", "--- ", "\n\n\n", "null", "[1]", '{"job_class": "Mailer"}',
    "\x04\bo:\x0fNewsletter\x06:\n@text", "a\x00b", "--- !ruby/object:Nope\n", "--- !ruby/object:\u00c9t\u00e9 {}\n",
    "--- !!python/object/apply:os.abort []\n", "--- &a\n- *a\n", "--- !ruby/class 'Notifier'\n",
    "--- !ruby/object:Delayed::PerformableMethod\nmethod_name: :tell\nobject: 7\nargs: []\n",
    "--- !ruby/object:Delayed::PerformableMethod\nobject: !ruby/object:\nmethod_name: \nargs: {}\n",
)):
    put(f"yaml-{number}", handler)
for number, cut in enumerate(range(1, len(whole), 17)):
    put(f"cut-{number}", whole[:cut])
for column in COLUMNS_READ:
    for number, junk in enumerate(JUNK):
        put(f"{column}-{number}", **{column: junk})
put("early", run_at="-infinity")
put("large-text", f"--- !ruby/struct:NewsletterJob\ntext: {'x' * LARGE}\n")
put("large-argument", METHOD % ("x" * LARGE))
put("large-object", METHOD.replace("id: 7", f"id: {'x' * LARGE}") % "ok")
put("last", "--- !ruby/struct:NewsletterJob\ntext: last\n", priority=1000)
'''
# What is left in the table.
LEFT = """
from database import *

READ = "SELECT id, handler, attempts, last_error, locked_at IS NULL AS free, failed_at IS NULL AS alive, queue"
for row in execute(f"{READ} FROM delayed_jobs").fetchall():
    row["last_error"] = (row["last_error"] or "").replace(os.getcwd(), "FOLDER")[-500:]
    print(*(f"{name}={ascii(value)[:600]}" for name, value in row.items()))
"""
# Works off all there is, each once.
LOOP = """
MAX_ATTEMPTS = 1

while job := reserve():
    try:
        work(job)
    finally:
        if job["priority"] == 1000:
            note("last")
"""

# The actions of the first rows but those of the program's own function, whose class cannot be read.
ACTIONS = {
    "method": "User#tell",
    "yaml-8": "\x0fNewsletter\x06:#perform",
    "yaml-10": "Nope#perform",
    "yaml-11": "\u00c9t\u00e9#perform",
    "yaml-12": "os.abort#perform",
    "yaml-15": "Delayed::PerformableMethod#tell",
    "cut-1": "D#perform",
    "cut-2": "Delayed::Performab#perform",
    "cut-3": "Delayed::PerformableMethod#perform",
    "cut-5": "User#perform",
    "cut-6": "User#perform",
    "cut-7": "User#tell",
    "large-argument": "User#tell",
    "large-object": "User#perform",  # the method's name comes after the object, too late
}
# Those of rows whose `attempts`, 1 in others, is as SQLite keeps it; PostgreSQL rounds 1.5.
ATTEMPTS = {"attempts-1": 8, "attempts-4": 2} | {f"attempts-{number}": None for number in (2, 3, 5, 6, 7)}
# What `doctor` says. PostgreSQL takes few of these rows.
UNAVAILABLE = {
    "sqlite": (
        "attempts unavailable 5 times: no + between a str and a int",
        "class unavailable 2 times: no index 0",
        "enqueued_at unavailable 6 times: the number is no time since the epoch",
    ),
    "postgresql": ("attempts unavailable 1 time: not a count from 1", "class unavailable 1 time: no index 0"),
}


def expected(label: str, database: str) -> tuple[str, int | None, bool, bool]:
    """Return the action and attempts of a row's record, and whether its queue and queue time are known."""
    is_own = label.startswith(("yaml-", "cut-", "handler-"))
    attempts = ATTEMPTS.get(label, 2)
    if database == "postgresql" and label == "attempts-4":
        attempts = 3
    action = ACTIONS.get(label, "__main__#perform" if is_own else "NewsletterJob#perform")
    return action, attempts, label not in ("queue-0", "queue-7"), not label.startswith(("run_at-", "early"))
