from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoinst.rules import keys
from autoinst.rules.document import Document
from autoinst.rules.packs import builtin_packs
from autoinst.rules.parse import Parser
from autoinst.rules.schema import schema

ROOT = Path(__file__).resolve().parent.parent


def test_the_schema_and_the_reference_are_up_to_date() -> None:
    script = ROOT / "scripts" / "rules_reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def valid(value: Any, part: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Judge a value by the part of JSON schema that ours uses (jsonschema is no dependency of the tests)."""
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rpartition("/")[2]]
    kinds: dict[str, Any] = {
        "string": str,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": dict,
    }
    wanted = part.get("type")
    if wanted is not None:
        names = [wanted] if isinstance(wanted, str) else wanted
        if not any(
            isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
        ):
            return False
    if "enum" in part and value not in part["enum"]:
        return False
    if "const" in part and value != part["const"]:
        return False
    if "anyOf" in part and not any(valid(value, other, whole) for other in part["anyOf"]):
        return False
    if isinstance(value, list):
        return len(value) >= part.get("minItems", 0) and all(
            valid(item, part.get("items", {}), whole) for item in value
        )
    if isinstance(value, dict):
        known = part.get("properties", {})
        rest = part.get("additionalProperties", True)
        return set(part.get("required", ())) <= set(value) and all(
            valid(item, known[key], whole)
            if key in known
            else (valid(item, rest, whole) if isinstance(rest, dict) else rest)
            for key, item in value.items()
        )
    return True


GOOD = [
    "{version: 1}",
    "{version: 1, jobs: [{class: a.B, methods: [m, 'on']}, {function: a.f, requires: {rq: '>=1'}}]}",
    "{version: 1, jobs: [{function: a.f, payload: {queue: q, eta: {value: '${x}', unit: ms}, args: ['${a}', x]}}]}",
    "{version: 1, events: [{function: a.f, title: '${x}', when: '${y}'}], service: s, defaults: {redact: [x]}}",
    "{version: 1, exceptions: [{function: a.f, exception: '${e}'}], packs: [none], include: [x.yaml]}",
    "{version: 1, jobs: [{module: a, functions: [f], nested: new, unsafe: true, ignore_exceptions: [KeyError]}]}",
    "{version: 1, carries: [{function: a.f, carry: {into: '${result}', value: ['${a}', '${b}'], name: x}}]}",
    "{version: 1, enqueues: [{function: a.f, carry: {into: '${x}', key: k, stamp: s, form: sqs}}]}",
    "{version: 1, carries: [{function: a.f, carry: {into: '${x}', key: k, form: sqs_batch}}]}",
    "{version: 1, defaults: {carry: false}}",
]
GOOD += [
    "{version: 1, jobs: [{function: a.f, check_in: nightly}]}",
    "{version: 1, jobs: [{function: a.f, check_in: {identifier: n, type: cron, schedule: '30 3 * * *', grace: 10m}}]}",
    "{version: 1, jobs: [{function: a.f, check_in: {identifier: n, type: heartbeat, every: 90}}]}",
]
BAD = [
    "{version: 1, carries: [{function: a.f}]}",
    "{version: 1, enqueues: [{function: a.f, carry: {key: headers}}]}",
    "{version: 1, enqueues: [{function: a.f, carry: {into: '${x}', form: no way}}]}",
    "{version: 1, enqueues: [{function: a.f, payload: {queue: q}}]}",
    "{jobs: []}",
    "{version: 2}",
    "{version: 1, jbos: []}",
    "{version: 1, jobs: {}}",
    "{version: 1, jobs: [{methods: [m]}]}",
    "{version: 1, jobs: [{class: a.B, methods: m}]}",
    "{version: 1, jobs: [{function: a.f, nested: no way}]}",
    "{version: 1, jobs: [{function: a.f, title: x}]}",
    "{version: 1, jobs: [{function: a.f, payload: {quue: x}}]}",
    "{version: 1, jobs: [{function: a.f, payload: {eta: {unit: ms}}}]}",
    "{version: 1, exceptions: [{function: a.f}]}",
    "{version: 1, jobs: [{function: a.f, check_in: {schedule: '@daily'}}]}",
    "{version: 1, jobs: [{function: a.f, check_in: [nightly]}]}",
    "{version: 1, events: [{function: a.f, check_in: nightly}]}",
]


@pytest.mark.parametrize(("text", "expected"), [*((text, True) for text in GOOD), *((text, False) for text in BAD)])
def test_the_schema_and_the_loader_agree(text: str, expected: bool) -> None:
    whole = schema()
    assert valid(yaml.safe_load(text), whole, whole) is expected
    document = Document("x.yaml", text.replace("[x.yaml]", "[]"))
    Parser(document).parse()
    assert (document.problems == []) is expected


def test_the_built_in_packs_fit_the_schema() -> None:
    whole = schema()
    for file in builtin_packs().values():
        assert valid(yaml.safe_load(Path(file).read_text("utf-8")), whole, whole)


def test_every_key_is_in_the_schema_with_its_meaning() -> None:
    text = json.dumps(schema())
    for key in (*keys.TOP, *keys.DEFAULTS, *keys.RULE, *keys.CHECK_IN, *keys.PAYLOAD, *keys.CARRY, *keys.LONG_FORM):
        assert json.dumps(key.doc) in text
