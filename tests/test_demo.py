"""`autoinst demo`: a real worker under `autoinst run`, and every job it ran."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from tests.launching import AUTOINST, environment

if TYPE_CHECKING:
    from pathlib import Path


def test_demo_records_every_job(tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    done = subprocess.run(
        [AUTOINST, "demo", "--json"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter((job["action"], job["status"]) for job in jobs) == {
        ("jobs.InvoiceMailer#perform", "ok"): 3,
        ("jobs.InvoiceMailer#perform", "ignored"): 1,
        ("jobs.PaymentCapture#perform", "error"): 2,
        ("jobs.PaymentCapture#perform", "ok"): 1,
        ("jobs.PriceImport#perform", "error"): 1,
        ("jobs.StockReport#perform", "ok"): 1,
        ("jobs.VideoThumbnail#perform", "killed"): 1,
        ("jobs#send_email", "ok"): 1,
    }
    captures = sorted((job for job in jobs if job["class"] == "jobs.PaymentCapture"), key=lambda job: job["attempts"])
    assert [(job["attempts"], job["status"]) for job in captures] == [(1, "error"), (2, "error"), (3, "ok")]
    assert captures[0]["exception"]["class"] == "jobs.GatewayTimeout"
    assert [cause["class"] for cause in captures[0]["exception"]["causes"]] == ["TimeoutError"]
    (slow,) = (job for job in jobs if job["class"] == "jobs.StockReport")
    assert slow["duration"] > 800
    assert [event["name"] for event in slow["events"]] == ["query.sqlite"] * 20 + ["render.pdf"]
    (killed,) = (job for job in jobs if job["status"] == "killed")
    assert killed["killed"]["last_event"] == "encode.video"
    assert killed["queue"] == "media"
    assert all(job["queue_time"] >= 0 for job in jobs if job["class"] != "jobs")
    assert len({job["id"] for job in jobs}) == len(jobs)


def test_demo_shows_the_jobs_and_where_to_look(tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    done = subprocess.run([AUTOINST, "demo"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("$ autoinst run --rules ")
    assert "worker: done" in lines
    assert sum("jobs.PaymentCapture#perform" in line for line in lines) == 3
    commands = [line.partition("#")[0].strip() for line in lines if line.strip().startswith("AUTOINST_HOME=")]
    (page,) = (command for command in commands if command.endswith(" ui"))
    commands.remove(page)  # which ends only when it is told to
    assert len(commands) == 7
    for command in commands:
        shown = subprocess.run(
            ["bash", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert shown.stdout
    on_path = env | {"PATH": f"{os.path.dirname(AUTOINST)}:{env['PATH']}"}
    done = subprocess.run([AUTOINST, "demo"], env=on_path, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "/home autoinst show " in done.stdout
