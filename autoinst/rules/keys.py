"""The one table of the keys a rules file may have: what loading, the JSON schema and the reference are made from."""

from __future__ import annotations

from dataclasses import dataclass

JOBS, EVENTS, EXCEPTIONS, ENQUEUES, CARRIES, ENRICH = SECTIONS = (
    *("jobs", "events", "exceptions"),
    *("enqueues", "carries", "enrich"),
)
KINDS = {
    JOBS: "job",
    EVENTS: "event",
    EXCEPTIONS: "exception",
    ENQUEUES: "enqueue",
    CARRIES: "carry",
    ENRICH: "enrich",
}
VERSION = 1
NESTED = ("event", "new")
NESTED_EVENTS = ("event", "none")
UNITS = ("s", "ms", "us", "ns")
NAIVE = ("utc", "local")
AT = ("enter", "exit")
TIMES = ("enqueued_at", "eta")
CHECK_IN_TYPES = ("cron", "heartbeat")
FORMS = ("plain", "text", "sqs", "sqs_batch")
WRAPS = "wraps"
CALLABLE = "callable"
HANDED = "^(result|argument +[^\\W\\d]\\w*)$"


@dataclass(frozen=True)
class Key:
    """One key: what its value is (`shape`, see SHAPES), what it is for, and in which sections it may be."""

    name: str
    shape: str
    doc: str
    sections: tuple[str, ...] = SECTIONS
    choices: tuple[str, ...] = ()
    in_packs: bool = False


SHAPES = {
    "text": "text",
    "texts": "list of texts",
    "names": "list of names",
    "path": "dotted path",
    "paths": "list of dotted paths",
    "choice": "one of several words",
    "yes": "`true` or `false`",
    "number": "whole number",
    "share": "0 to 1, or `1/20`",
    "milliseconds": "number of ms",
    "age": "days, or `36h`, `30d`, `8w`",
    "size": "bytes, or `500M`, `2G`",
    "count": "whole number",
    "number_of": "whole number",
    "value": "value",
    "values": "mapping of values",
    "versions": "mapping of distribution to versions",
    "handed": "`argument NAME` or `result`",
    "url": "address with `http://` or `https://`",
    "seconds": "number of seconds",
    "webhook": "address with `http://` or `https://`",
    "words": "list of words",
    "listen": "`127.0.0.1:9464`, or `unix:/path`",
    "headers": "mapping of texts",
    "mapping": "mapping",
    "check_in": "text or mapping",
    "span": "seconds, or `90s`, `5m`, `2h`, `1d`",
    "rules": "list of rules",
}

TOP = (
    Key("version", "number", "Version of the file format: 1.", in_packs=True),
    Key("include", "texts", "Further rules files, relative to this one; `*` as in a shell."),
    Key("service", "text", "Name of the service its records bear. `AUTOINST_SERVICE` wins."),
    Key("environment", "text", "Name of the environment, such as `production`. `AUTOINST_ENVIRONMENT` wins."),
    Key("revision", "text", "Revision of the program, such as a commit. `AUTOINST_REVISION` wins."),
    Key("defaults", "mapping", "Settings for every rule, see below."),
    Key("retention", "mapping", "How much the store keeps, see below. `AUTOINST_*` variables win."),
    Key("exporters", "mapping", "Where the agent sends jobs, see below. `AUTOINST_EXPORTERS` says which are on."),
    Key(
        "ignore_exceptions",
        "paths",
        "Exceptions that are no errors, for every rule: classes, bases, globs.",
        in_packs=True,
    ),
    Key("packs", "texts", "Which built-in packs are on: `default`, `none`, a name, `-name`. `AUTOINST_PACKS` wins."),
    Key("jobs", "rules", "Calls that are jobs: each opens a transaction.", in_packs=True),
    Key("events", "rules", "Calls that are events of the transaction in progress.", in_packs=True),
    Key("exceptions", "rules", "Calls in which a library swallows the job's exception.", in_packs=True),
    Key("enqueues", "rules", "Calls that put a job on a queue.", in_packs=True),
    Key("carries", "rules", "Calls that hand the trace of a job on, and are no events.", in_packs=True),
    Key("enrich", "rules", "Calls that know more of the transaction in progress: sets its fields.", in_packs=True),
)

DEFAULTS = (
    Key("namespace", "text", "Namespace of the records; `background_job` if left out."),
    Key("redact", "names", "Keys whose values are masked, beside the built-in ones."),
    Key("redact_messages", "yes", "Whether exceptions are recorded without their messages."),
    Key("env", "names", "Environment variables that are recorded, beside the built-in ones."),
    Key("carry", "yes", "Whether jobs that are put on a queue are handed the trace; `true` if left out."),
    Key("keep", "mapping", "Which jobs' records are kept where their rule does not say, see below."),
)

KEEP = (
    Key("ok", "share", "Share of the jobs that ended well whose records are kept."),
    Key("ignored", "share", "Share of those that ended in an ignored exception; all if left out."),
    Key("slower_than", "milliseconds", "Jobs that took this long are kept whatever the shares."),
)

RETENTION = (
    Key("age", "age", "How long jobs are kept; 0: for good. `AUTOINST_RETENTION_DAYS` wins."),
    Key("size", "size", "Size of the store beyond which the oldest go; 0: any. `AUTOINST_STORE_MAX` wins."),
    Key("rollups", "age", "How long totals by the hour are kept; for good if left out or 0."),
    Key("samples", "count", "Newest jobs of each error that stay however old they are; 5 if left out."),
)

RULE = (
    Key("class", "path", "Dotted path of a class; `*` within a part, `**` for any number of parts. With `methods`."),
    Key("methods", "names", "Methods of `class`, or of subclasses of `subclass_of`; globs."),
    Key("function", "path", "Dotted path of a function; also nested: `pkg.mod.factory.<locals>.job`."),
    Key("module", "path", "Dotted path of modules. With `functions`, `subclass_of` or `decorated_by`."),
    Key("functions", "names", "Functions of `module`; globs."),
    Key("subclass_of", "path", "Only methods of this class and of its subclasses."),
    Key("decorated_by", "path", "Only functions with this decorator."),
    Key("exclude", "paths", "Functions left out; globs over the dotted path."),
    Key(
        WRAPS, "handed", "The jobs are the calls of what is handed over: given as that argument, or returned.", (JOBS,)
    ),
    Key(
        "requires", "versions", "Installed versions the rule is for: `{rq: '>=1.16,<3'}`; `python` is the interpreter."
    ),
    Key("name", "text", "Name of the notification; a job's starts with `perform_job`.", (JOBS, EVENTS, ENQUEUES)),
    Key("namespace", "text", "Namespace of the record.", (JOBS,)),
    Key("nested", "choice", "A job inside a job: an `event` of it, or `new`.", (JOBS,), NESTED),
    Key("nested", "choice", "A call inside it: an `event`, or part of it.", (EVENTS, ENQUEUES), NESTED_EVENTS),
    Key("unsafe", "yes", "Values may run the program's properties; they are then read at exit."),
    Key("when", "value", "The call counts only where this is true."),
    Key("payload", "values", "What to record of a call, see below.", (JOBS, ENRICH)),
    Key("tags", "values", "Tags of the record: any names.", (JOBS, ENRICH)),
    Key("title", "value", "Title of the event.", (EVENTS, ENQUEUES)),
    Key("body", "value", "Body of the event, such as a query.", (EVENTS, ENQUEUES)),
    Key("exception", "value", "The swallowed exception. Required.", (EXCEPTIONS,)),
    Key("carry", "mapping", "How the job is handed the trace, see below.", (ENQUEUES, CARRIES)),
    Key("ignore_exceptions", "paths", "Exceptions that are no errors: classes, bases, globs.", (JOBS,)),
    Key("keep", "mapping", "Which jobs' records are kept, see below; all if left out.", (JOBS,)),
    Key("check_in", "check_in", "Who is told that the job ran, see below; all its jobs are kept.", (JOBS,)),
)

CHECK_IN = (
    Key("identifier", "text", "Name of the check-in. Required."),
    Key("type", "choice", "A `cron` tells its start and its end, a `heartbeat` its end.", choices=CHECK_IN_TYPES),
    Key("schedule", "text", "When it is due, as in a crontab: `30 3 * * *`; `@daily` and its like."),
    Key("timezone", "text", "Time zone of `schedule`; UTC if left out."),
    Key("every", "span", "How often it is due, in place of `schedule`."),
    Key("grace", "span", "How late it may be before it counts as missed; `5m` if left out."),
)

PAYLOAD = (
    Key("class", "value", "Dotted path of the job's class, if not that of the function."),
    Key("method", "value", "Name of the job's method, if not that of the function."),
    Key("queue", "value", "Name of the queue."),
    Key("queue_time", "value", "How long the job waited: `unit`, else ms. Wins over the two below."),
    Key(
        "enqueued_at", "value", "When the job was put on the queue; the queue time counts from the later of these two."
    ),
    Key("eta", "value", "When the job was due."),
    Key("attempts", "value", "Which run of the job this is; 1 for the first."),
    Key("job_id", "value", "The library's own id of the job."),
    Key("args", "value", "The job's positional arguments."),
    Key("kwargs", "value", "The job's keyword arguments."),
    Key("traceparent", "value", "The trace it was handed by an `enqueues` rule, as W3C's `traceparent`."),
)

CARRY = (
    Key("into", "value", "The mapping, or object, that goes with the job. Required."),
    Key("key", "text", "What in it holds the headers: that is exchanged for a copy with ours, or made."),
    Key("name", "text", "What ours is called; `traceparent` if left out."),
    Key("stamp", "text", "Name under which the time is added too, in ms since the epoch."),
    Key(
        "form",
        "choice",
        "As it is, as text only, or as an attribute of an SQS message, or of each in a list of them.",
        choices=FORMS,
    ),
    Key("value", "value", "What is written instead: what an earlier call was handed, say."),
)

LONG_FORM = (
    Key("value", "value", "The value itself: text, an expression, or a list of alternatives. Required."),
    Key("unit", "choice", "Unit of a number that is a time; by its magnitude if left out.", choices=UNITS),
    Key("naive", "choice", "What a time without a zone is; `utc` if left out.", choices=NAIVE),
    Key(
        "at",
        "choice",
        "Read before the call or after it; not for `when`, `title` and `body`, which are read before.",
        choices=AT,
    ),
    Key(
        CALLABLE,
        "value",
        "Of `args`: the function they are given to, whose parameters' names tell which are secret.",
    ),
)

NOTICES = ("new_error", "reopened_error", "killed_job", "missed_check_in", "slow_queue")
_REACHING = (
    Key("headers", "headers", "Headers of each request."),
    Key("timeout", "seconds", "How long a request may take in all; 10 if left out."),
    Key("certificate", "text", "File with the certificates of authorities to trust instead of the system's."),
    Key("client_certificate", "text", "File with this side's certificate."),
    Key("client_key", "text", "File with its key."),
    Key("proxy", "url", "Proxy; `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count otherwise."),
    Key("backlog", "number_of", "Jobs that may wait; the oldest beyond are left out. 1000000 if left out."),
)

EXPORTERS: dict[str, tuple[Key, ...]] = {
    "otlp": (
        Key("endpoint", "url", "Base address, to which `/v1/traces` is added; `http://localhost:4318` if left out."),
        Key("protocol", "choice", "How it is encoded.", choices=("http/protobuf", "http/json")),
        Key("compression", "choice", "Of the body.", choices=("gzip", "none")),
        Key("metrics", "yes", "Whether durations, queue times and counts are sent too; `true` if left out."),
        *_REACHING,
    ),
    "appsignal": (
        Key("push_api_key", "text", "Key of the organisation. `APPSIGNAL_PUSH_API_KEY` wins. Required."),
        Key("name", "text", "Name of the application; each record's service if left out. `APPSIGNAL_APP_NAME` wins."),
        Key("environment", "text", "Its environment; each record's if left out. `APPSIGNAL_APP_ENV` wins."),
        Key("revision", "text", "Revision of records that tell none. `APP_REVISION` wins."),
        Key("endpoint", "url", "Base address of AppSignal's agent or collector; `http://127.0.0.1:8099` if left out."),
        Key("check_in_endpoint", "url", "Base address check-ins are sent to; AppSignal's own if left out."),
        Key("report", "choice", "Errors of which runs are reported.", choices=("all", "last_attempt", "none")),
        Key("arguments", "yes", "Whether arguments of jobs are sent; `true` if left out."),
        Key("compression", "choice", "Of the body.", choices=("gzip", "none")),
        *_REACHING,
    ),
    "prometheus": (
        Key("listen", "listen", "Where `/metrics` is served; nowhere if left out. `AUTOINST_PROMETHEUS_LISTEN` wins."),
        Key("textfile", "text", "File to write for node_exporter's textfile collector; its name ends in `.prom`."),
        Key("interval", "seconds", "How often it is written; 15 if left out."),
    ),
    "webhook": (
        Key("url", "webhook", "Address that is posted to. `AUTOINST_WEBHOOK_URL` wins. Required."),
        Key("format", "choice", "What is posted: plain JSON, or a message for Slack.", choices=("json", "slack")),
        Key("secret", "text", "Key of the signature; none without. `AUTOINST_WEBHOOK_SECRET` wins."),
        Key("on", "words", "What is told; all of it if left out.", choices=NOTICES),
        Key("queue_time", "milliseconds", "A job that waited longer is told of (`slow_queue`); none if left out."),
        Key("repeat", "span", "How long the same thing is not told again; `1h` if left out."),
        Key("interval", "seconds", "Least time between two posts; 60 if left out."),
        Key("page", "url", "Base address of `autoinst ui`, for links."),
        *_REACHING[:-1],
    ),
}


def rule_keys(section: str) -> dict[str, Key]:
    """Return the keys that a rule of `section` may have."""
    return {key.name: key for key in RULE if section in key.sections}


def by_name(keys: tuple[Key, ...]) -> dict[str, Key]:
    """Return `keys` by their names."""
    return {key.name: key for key in keys}
