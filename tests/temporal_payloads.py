"""For tests/test_temporal.py: a worker of Temporal, and a workflow that hands its activities wrong payloads."""

LARGE = 1_900_000  # characters of an argument; Temporal's server takes payloads of 2 MiB
# What the worker and the sender share: a payload of Python's own kind, for values that JSON has not.
SHARED = """
import pickle
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import CompositePayloadConverter, DataConverter, DefaultPayloadConverter
from temporalio.converter import EncodingPayloadConverter
from mangle import Text, Touchy

class Pickles(EncodingPayloadConverter):
    encoding = "pickle"

    def to_payload(self, value):
        if isinstance(value, (Text, Touchy)):
            return Payload(metadata={"encoding": b"pickle"}, data=pickle.dumps(value))

    def from_payload(self, payload, type_hint=None):
        return pickle.loads(payload.data)

class Converter(CompositePayloadConverter):
    def __init__(self):
        super().__init__(Pickles(), *DefaultPayloadConverter.default_encoding_payload_converters)

CONVERTER = DataConverter(payload_converter_class=Converter)

def raw(encoding, data, **more):
    return RawValue(Payload(metadata={**({} if encoding is None else {"encoding": encoding}), **more}, data=data))
"""
# A worker with one workflow, whose history it prints.
PAYLOADS = """
import asyncio, json, os, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from collections.abc import Sequence
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.worker import Worker
from mangle import Text, Touchy, wrong
from notes import note
from shared import CONVERTER, raw

LARGE = 1_900_000
ONCE = {"start_to_close_timeout": timedelta(minutes=5), "retry_policy": RetryPolicy(maximum_attempts=1)}
ENCODINGS = (None, b"", b"\\xff", b"nobody/knows", b"json/protobuf", b"binary/protobuf")
ENCODINGS += (b"binary/plain", b"binary/null", b"pickle")

@activity.defn
def job(name, *values):
    note(name)

@activity.defn
async def later(name, *values):
    note(name)

@activity.defn
def count(number: int):
    note(number)

@activity.defn(dynamic=True)
async def anything(values: Sequence[RawValue]):
    note(activity.info().activity_type)

@activity.defn
def unserialisable():
    note("unserialisable")
    return object()

@activity.defn
async def order():
    note("order")
    for value in (object(), {1, object()}, "x" * 6_000_000, Touchy):
        for start, what in ((clients[0].start_workflow, "All"), (clients[0].start_activity, "job")):
            more = {} if what == "All" else {"start_to_close_timeout": timedelta(minutes=5)}
            try:
                await start(what, value, id="wrong", task_queue="mail", **more)
            except Exception as error:
                print(what, type(error), str(error)[:300], flush=True)

@workflow.defn(sandboxed=False)
class All:
    @workflow.run
    async def run(self):
        good = b'"mangled"'
        for data in (good, *wrong(good)):
            await self.call("job", raw(b"json/plain", data))
            await self.call("later", raw(b"json/plain", data))
        for encoding in ENCODINGS:
            await self.call("job", raw(encoding, good))
        await self.call("job", raw(b"json/protobuf", b"{}", messageType=b"no.Message"))
        await self.call("job", raw(b"json/plain", good), raw(b"json/plain", b"{"))
        await self.call("job")
        await self.call("later")
        await self.call("nobody-has", "x")
        await self.call("anything", raw(b"nobody/knows", b"\\xff"), task_queue="any")
        await self.call("count", "seven")
        await self.call("count", 7)
        await self.call("count", 7, 8)
        for value in (object(), {1}):
            await self.call("job", "never", value)
        await self.call("unserialisable")
        await self.call("order")
        await self.call("job", "large", "x" * LARGE)
        await self.call("later", "large", "x" * LARGE)
        await self.call("job", "touchy", Touchy(), Text("abc"))
        await self.call("later", "touchy", Touchy(), Text("abc"))
        await self.call("job", "last")

    async def call(self, name, *values, **more):
        try:
            await workflow.execute_activity(name, args=values, **ONCE, **more)
        except ActivityError as error:
            pass
        except Exception as error:
            print(name, type(error), error, flush=True)

clients = []

async def main():
    errors = TelemetryFilter(core_level="ERROR", other_level="ERROR")  # it warns of what is slow
    runtime = Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=errors)))
    options = {"namespace": os.environ["NAMESPACE"], "data_converter": CONVERTER, "runtime": runtime}
    client = await Client.connect(os.environ["ADDRESS"], **options)
    clients.append(client)
    slow = timedelta(minutes=2)  # machines are given time
    options = {"identity": "worker", "debug_mode": True, "sticky_queue_schedule_to_start_timeout": slow}
    started = await client.start_workflow("All", id="all", task_queue="mail", task_timeout=slow)
    with ThreadPoolExecutor(2) as pool:
        activities = [job, later, count, unserialisable, order]
        options |= {"activity_executor": pool}
        mail = Worker(client, task_queue="mail", workflows=[All], activities=activities, **options)
        async with mail, Worker(client, task_queue="any", activities=[anything], **options):
            await started.result()
    for event in json.loads((await started.fetch_history()).to_json())["events"]:
        if not event["eventType"].startswith("EVENT_TYPE_WORKFLOW_TASK"):  # of which there may be more
            kept = {name: part for name, part in event.items() if name not in ("eventId", "eventTime", "taskId")}
            print(json.dumps(kept, sort_keys=True)[:3000])

if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # the SDK's own threads may end a Python that is ending
"""
