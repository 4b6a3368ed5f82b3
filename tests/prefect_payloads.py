"""For tests/test_prefect.py: flows and tasks with parameters that are wrong, large, or fight back."""

# What runs flows at once and as a worker does, and then works off deferred tasks.
PAYLOADS = """
import asyncio, json, os, pathlib, threading
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.flow_engine import run_flow
from prefect.runner import Runner
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_worker import serve
from mangle import JUNK, LARGE, Text, Touchy, mangled
from notes import note

HERE = "SIDE"  # what is its own on a server that others use
UNSERIALISABLE = (threading.Lock(), (number for number in ()))

@flow(flow_run_name="job")
def job(name, *values):
    note(name)

@flow(flow_run_name="later")
async def later(name, *values):
    note(name)

@flow(flow_run_name="count")
def count(number: int = 0):
    note(number)

@flow(flow_run_name="loose", validate_parameters=False)
def loose(number: int):
    note(number)

@task(task_run_name=lambda parameters: f"part-{parameters['name']}")
def part(name, *values):
    note(name)
    return "SIDE"  # Prefect tells tasks by their name and code

@flow(flow_run_name="order")
def order():
    note("order")
    for value in ("seven", None, 7, object(), "x" * LARGE):
        run = attempt(run_deployment, f"count/{HERE}", parameters={"number": value}, timeout=0, flow_run_name="count")
        runs.append((count, run))
    for parameters in ({"nothing": 7}, {}, [1], "text", {"number": "8"}):
        run = attempt(run_deployment, f"loose/{HERE}", parameters=parameters, timeout=0, flow_run_name="loose")
        runs.append((loose, run))
    for value in UNSERIALISABLE:
        attempt(part.delay, "never", value)

def attempt(call, *values, **more):
    try:
        return call(*values, **more)
    except Exception as error:
        print(call, type(error), str(error)[:1000], flush=True)

def at_once():
    for value in ("seven", None, 7):
        attempt(count, value)
        attempt(loose, value)
    for values in ((), (7, 8)):
        attempt(count, *values)
        attempt(loose, *values)
    attempt(count, nothing=7)
    for call in (job, lambda *values: asyncio.run(later(*values))):
        attempt(call, "unserialisable", *UNSERIALISABLE, {1, object()})
        attempt(call, "touchy", Touchy(), Text("abc"))
        attempt(call, "400 kB", "x" * 400_000)  # the server takes parameters of 512 KiB
        attempt(call, "never", "x" * LARGE)
    attempt(part, "large", "x" * LARGE)  # whose parameters stay here

def as_a_worker_does():
    Runner(name=HERE).add_flow(count, name=HERE)
    Runner(name=HERE).add_flow(loose, name=HERE, enforce_parameter_schema=False)
    order()
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"count/{HERE}")
        for number, junk in enumerate((7, True, "text", "00-0-0-0", 1.5)):
            labels = {"__OTEL_TRACEPARENT": junk}
            run = attempt(client.create_flow_run_from_deployment, deployment.id, labels=labels, name="count",
                          parameters={"number": 100 + number})
            runs.append((count, run))
        for called, run in runs:
            if run is not None:
                attempt(run_flow, called, flow_run=client.read_flow_run(run.id))

def deferred():
    stored = pathlib.Path(os.environ["PREFECT_HOME"], "storage", "parameters")
    def put(payload=None):
        before = {*stored.iterdir()}
        part.delay("mangled")
        (path,) = {*stored.iterdir()} - before
        return path.read_bytes() if payload is None else path.write_bytes(payload)
    stored.mkdir(parents=True)
    good = put()
    for payload in mangled(good):
        put(payload)
    part.delay("touchy", Touchy(), Text("abc"))
    part.delay("large", "x" * LARGE)
    part.delay("last")

runs = []

if __name__ == "__main__":
    # Where runs have heartbeats, each waits for a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), tags(HERE):
        at_once()
        as_a_worker_does()
    deferred()
    serve(part, limit=1)
"""
