from __future__ import annotations

import datetime as dt
from typing import Any

from rq.job import Job, Retry

from autoinst.rules.expressions import Unavailable, compile_field, time_ns
from autoinst.rules.load import load_files


class Connection:
    """What a Job asks of a connection while nothing is sent."""

    connection_pool = None


CONNECTION: Any = Connection()


class Mailer:
    def send(self, to: str) -> None: ...


def send_email(to: str, copies: int = 1) -> None: ...


def read(job: Job) -> dict[str, Any]:
    (rule,) = (rule for rule in load_files([], "rq")[0].rules if rule.kind == "job")
    assert not rule.unsafe
    found: dict[str, Any] = {}
    for key, field in rule.fields.items():
        assert field.at == "enter"  # a killed job is known by what is read before it runs
        try:
            found[key] = compile_field(field, ("self",))(job)
        except Unavailable as reason:
            found[key] = f"unavailable: {reason}"
        if key == "enqueued_at" and found[key] is not None:
            found[key] = time_ns(found[key], field.unit, field.naive)
    return found


def make(target: Any = send_email, **options: Any) -> Job:
    job = Job.create(target, connection=CONNECTION, **options)
    job.origin = "mail"
    return job


def test_a_function() -> None:
    job = make(args=("me",), kwargs={"copies": 2}, id="the-id")
    job.enqueued_at = dt.datetime(2024, 5, 6, 12, tzinfo=dt.timezone.utc)
    assert read(job) == {
        "class": __name__,
        "method": "send_email",
        "queue": "mail",
        "enqueued_at": 1_714_996_800 * 10**9,
        "attempts": 1,
        "job_id": "the-id",
        "traceparent": None,
        "args": ("me",),
        "args.callable": None,  # imported when the job runs, see `enrich`
        "kwargs": {"copies": 2},
        "tags.retries_left": None,
    }
    job.enqueued_at = dt.datetime(2024, 5, 6, 12, tzinfo=None)  # noqa: DTZ001 - as RQ 1 keeps it, in UTC
    assert read(job)["enqueued_at"] == 1_714_996_800 * 10**9


def test_a_method_is_of_its_objects_class() -> None:
    found = read(make(Mailer().send, args=("me",)))
    assert (found["class"], found["method"]) == (f"{__name__}.Mailer", "send")


def test_data_that_is_not_deserialised_yet_is_left_alone() -> None:
    job = make(args=("me",), id="the-id")
    data = job.data
    fetched = Job("the-id", connection=CONNECTION)
    fetched.data = data
    fetched.origin = "mail"
    found = read(fetched)
    assert (found["job_id"], found["queue"]) == ("the-id", "mail")
    assert all(str(found[key]).startswith("unavailable") for key in ("class", "method", "args", "kwargs"))
    assert fetched.func_name == f"{__name__}.send_email"  # what a worker does before it performs the job
    found = read(fetched)
    assert (found["class"], found["method"], tuple(found["args"])) == (__name__, "send_email", ("me",))


def test_attempts_count_this_run_where_rq_keeps_it() -> None:
    job = make()
    job.number_of_retries = 2
    assert read(job)["attempts"] == 3
    job = make()
    if hasattr(job, "retries_left"):
        job.retries_left = Retry(max=3).max
    assert (read(job)["attempts"], read(job)["tags.retries_left"]) == (1, 3)
    job.retries_left, job.ended_at = 2, dt.datetime.now(dt.timezone.utc)
    assert (read(job)["attempts"], read(job)["tags.retries_left"]) == (None, 2)
