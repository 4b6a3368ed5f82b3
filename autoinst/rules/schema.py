"""The JSON schema and the reference table of the rules file, both made from the table of keys."""

from __future__ import annotations

from typing import Any

from autoinst.rules import keys

ADDRESS = "https://json-schema.org/draft/2020-12/schema"
SCALAR = {"type": ["string", "number", "boolean", "null"]}


def schema() -> dict[str, Any]:
    """Return the JSON schema of a rules file (draft 2020-12)."""
    return {
        "$schema": ADDRESS,
        "title": "autoinst rules",
        "description": "Which calls of a program are background jobs, and what to record of them.",
        **_object(keys.TOP, required=["version"]),
        "$defs": {
            "value": {
                "description": "A literal, an expression in ${...}, a list of alternatives, or the long form.",
                "anyOf": [
                    SCALAR,
                    {"type": "array", "minItems": 1, "items": SCALAR},
                    _object(keys.LONG_FORM, required=["value"]),
                ],
            },
            "values": {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
            "payload": _object(keys.PAYLOAD),
            "defaults": _object(keys.DEFAULTS),
            "keep": {**_object(keys.KEEP), "minProperties": 1},
            "check_in": _object(keys.CHECK_IN, required=["identifier"]),
            "carry": _object(keys.CARRY, required=["into"]),
            "retention": _object(keys.RETENTION),
            "exporters": _exporters(),
            **{f"rule_{section}": _rule(section) for section in keys.SECTIONS},
        },
    }


def _object(table: tuple[keys.Key, ...], required: list[str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property(key) for key in table},
    }
    if required:
        found["required"] = required
    return found


def _exporters() -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    for name, table in keys.EXPORTERS.items():
        found["properties"][name] = {**_object(table), "type": ["object", "null"]}
    return found


def _rule(section: str) -> dict[str, Any]:
    needed = {keys.EXCEPTIONS: ["exception"], keys.CARRIES: ["carry"]}
    found = _object(tuple(keys.rule_keys(section).values()), needed.get(section))
    # the forms of a target; that only one of them may be there is left to `autoinst check`
    found["anyOf"] = [{"required": [name]} for name in ("class", "function", "module", "subclass_of")]
    return found


def _property(key: keys.Key) -> dict[str, Any]:
    text = {"type": ["string", "number", "boolean"]}  # YAML 1.1's booleans are texts here
    figure = {"type": ["number", "string"]}
    shapes: dict[str, dict[str, Any]] = {
        "text": text,
        "texts": {"type": "array", "items": text},
        "names": {"type": "array", "items": text},
        "path": {"type": "string"},
        "paths": {"type": "array", "items": {"type": "string"}},
        "choice": {"enum": list(key.choices)},
        "yes": {"type": "boolean"},
        "number": {"const": keys.VERSION},
        "share": figure,
        "age": figure,
        "size": figure,
        "milliseconds": {"type": "number"},
        "count": {"type": "number"},
        "number_of": {"type": "number"},
        "handed": {"type": "string", "pattern": keys.HANDED},
        "url": {"type": "string"},
        "listen": {"type": "string"},
        "webhook": {"type": "string"},
        "words": {"type": "array", "minItems": 1, "items": {"enum": list(key.choices)}},
        "seconds": {"type": "number"},
        "headers": {"type": "object", "additionalProperties": text},
        "value": {"$ref": "#/$defs/value"},
        "values": {"$ref": "#/$defs/payload" if key.name == "payload" else "#/$defs/values"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "check_in": {"anyOf": [text, {"$ref": "#/$defs/check_in"}]},
        "span": figure,
        "mapping": {"$ref": f"#/$defs/{key.name}"},
        "rules": {"type": ["array", "null"], "items": {"$ref": f"#/$defs/rule_{key.name}"}},
    }
    return {"description": key.doc, **shapes[key.shape]}


def reference() -> str:
    """Return the tables of all keys as Markdown."""
    parts = [
        _table("Top level", keys.TOP, with_sections=False),
        _table("`defaults`", keys.DEFAULTS, with_sections=False),
        _table("A rule", keys.RULE, with_sections=True),
        _table("`keep`", keys.KEEP, with_sections=False),
        _table("`check_in`", keys.CHECK_IN, with_sections=False),
        _table("`payload`", keys.PAYLOAD, with_sections=False),
        _table("`carry`", keys.CARRY, with_sections=False),
        _table("The long form of a value", keys.LONG_FORM, with_sections=False),
        _table("`retention`", keys.RETENTION, with_sections=False),
        *(_table(f"`exporters: {name}:`", table, with_sections=False) for name, table in keys.EXPORTERS.items()),
    ]
    return "\n".join(parts)


def _table(title: str, table: tuple[keys.Key, ...], with_sections: bool) -> str:
    extra = " In |" if with_sections else ""
    lines = [
        f"### {title}",
        "",
        f"| Key | Value |{extra} Meaning |",
        "|---|---|" + ("---|" if with_sections else "") + "---|",
    ]
    for key in table:
        shape = " or ".join(f"`{choice}`" for choice in key.choices) if key.choices else keys.SHAPES[key.shape]
        where = f" {_sections(key)} |" if with_sections else ""
        lines.append(f"| `{key.name}` | {shape} |{where} {key.doc} |")
    return "\n".join([*lines, ""])


def _sections(key: keys.Key) -> str:
    return "all" if key.sections == keys.SECTIONS else ", ".join(key.sections)
