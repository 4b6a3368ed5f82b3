"""What the help of each command ends with: examples, variables, exit statuses."""

from __future__ import annotations

MAIN = """\
examples:
  autoinst init                             write a first rules file for the program here
  autoinst run worker.py --queue mail       run a program under autoinst; `autoinst run --help` says more
  autoinst jobs --status error,killed       what went wrong
  autoinst show 3fe02125cc1a                one job, by the ID in that table
  autoinst check rules.yaml                 is the rules file right?

environment:
  AUTOINST_HOME         where records are kept (default: the XDG state directory's autoinst folder)
  AUTOINST_RULES        rules files and folders, separated as PATH is (default: autoinst.yaml in the working directory)
  AUTOINST_PACKS        built-in rule packs: default, none, rq, -rq, ...
  AUTOINST_GROUP        group that may read them: the home is then 2750, its files 0640 (default: nobody else may)
  AUTOINST_EXPORTERS    where the agent sends jobs: otlp (default: those of the rules file)
  AUTOINST_STORE        ClickHouse past one machine: clickhouse://user:password@host:8123/database
  AUTOINST_AGENT=off    programs start no agent; `jobs` and the like read what workers recorded by themselves
  AUTOINST_ENABLED=0    `run` and the sitecustomize install nothing
  NO_COLOR              no colour on a terminal either

exit status: 0 ok, 1 problems, 2 usage; `run`: the program's own"""

JOBS = """\
examples:
  autoinst jobs --limit 20
  autoinst jobs --status error,killed --since 2h
  autoinst jobs --action 'billing.jobs.*' --queue mail
  autoinst jobs --json --limit 0 | jq .duration

ID is a short form of a job's id, which `autoinst show` takes; --json has all of it."""

TAIL = """\
examples:
  autoinst tail
  autoinst tail --status error,killed --action 'billing.*'
  autoinst tail --json --limit 0 | jq .action      only what ends from now on"""

ACTIONS = """\
examples:
  autoinst actions
  autoinst actions --since 1h --sort p95
  autoinst actions --json | jq 'select(.errors > 0)'"""

ERRORS = """\
examples:
  autoinst errors
  autoinst errors 3fe0 --resolve
  autoinst errors --state all --json"""

COMPLETION = """\
examples:
  autoinst completion bash > ~/.local/share/bash-completion/completions/autoinst
  autoinst completion zsh > ~/.zfunc/_autoinst      with fpath+=~/.zfunc before compinit
  autoinst completion fish > ~/.config/fish/completions/autoinst.fish"""

SHOW = """\
examples:
  autoinst show 3fe02125cc1a
  autoinst show 3fe02125cc1a --full
  autoinst show 3fe02125cc1a --json | jq .exception"""

INIT = """\
examples:
  autoinst init
  autoinst init services/billing -o -

Nothing of the program is imported. Likely jobs become rules, doubtful ones comments."""

CHECK = """\
examples:
  autoinst check
  autoinst check rules.yaml
  autoinst check rules.d/ --json

exit status: 0 nothing wrong, 1 problems, 2 usage"""

EXPLAIN = """\
examples:
  autoinst explain shop.jobs:Mailer.perform
  autoinst explain shop.jobs                  every function of the module that a rule acts on
  autoinst explain worker.py:main --rules rules.yaml
  autoinst explain rq.job:Job.perform --json

exit status: 0 a rule acts on each, 1 not so, 2 usage"""

DOCTOR = """\
examples:
  autoinst doctor
  AUTOINST_RULES=rules.yaml autoinst doctor --json

exit status: 0 all well, 1 something needs attention"""

AGENT = """\
examples:
  autoinst agent                  as a daemon, unless one runs; it ends when nothing is left to do
  autoinst agent --foreground     under systemd or in a container: until SIGTERM
  autoinst agent --once           store all there is, and end

environment:
  AUTOINST_AGENT_IDLE   seconds without a worker after which the daemon ends (default 60)
  AUTOINST_AGENT=off    `autoinst run` and programs start none

There is one agent a home; a second says who leads. docs/operations.md has a systemd unit and a sidecar."""

EXPORT = """\
examples:
  autoinst export > jobs.jsonl
  autoinst export --format csv --since 7d --status error > errors.csv

JSON Lines have all that `autoinst jobs --json` has; CSV leaves out events and backtraces.
`autoinst import` reads JSON Lines back, on this machine or another."""

IMPORT = """\
examples:
  autoinst export | gzip > jobs.jsonl.gz                       on one machine
  autoinst import jobs.jsonl.gz                                on another
  ssh worker-2 autoinst export | autoinst import -

Each job goes in once, however often it is imported, and counts in all totals. Lines that are wrong are named and left
out; the rest goes in. Jobs that still ran when they were exported are left out too: import again once they ended.
Exporters and webhooks are not told of imported jobs; a ClickHouse of AUTOINST_STORE gets them.

exit status: 0 all lines were jobs, 1 some were wrong, 2 usage"""

UI = """\
examples:
  autoinst ui --open
  autoinst ui --port 0
  autoinst ui --read-from /backup/autoinst/store.sqlite3
  AUTOINST_UI_TOKEN=... autoinst ui --host 0.0.0.0

Only this machine is served unless there is a token. Keys: / searches, j and k choose a row, ? shows all.
It needs what `pip install 'autoinst[ui]'` installs. docs/web.md says more."""

DEMO = """\
examples:
  autoinst demo
  AUTOINST_HOME=/tmp/demo autoinst demo"""

PATH = """\
example:
  PYTHONPATH=$(autoinst path) python worker.py"""
