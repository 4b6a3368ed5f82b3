"""Gathers what `autoinst doctor` tells: one plain dict, which is also its JSON."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from autoinst import __version__
from autoinst.agent.filesystem import NETWORK, file_system
from autoinst.agent.intake import QUARANTINE_NAME
from autoinst.agent.journal import last_line
from autoinst.agent.limits import limits
from autoinst.agent.sharing import sharing_problem
from autoinst.cli.check_ins import check_ins
from autoinst.cli.exporters import exporters
from autoinst.cli.pack_facts import pack_facts
from autoinst.cli.reading import Home, owner_of, user_name
from autoinst.cli.server import server, shown_address
from autoinst.config import OFF_WORDS, boot_folder
from autoinst.demand import NOT_STARTED
from autoinst.errors import AutoinstError
from autoinst.leader import leader
from autoinst.record import rfc3339
from autoinst.rules.load import load_files
from autoinst.spool.room import FULL_NAME
from autoinst.store.statuses import RECENT_PROCESSES, process_facts, rule_statuses, unavailable_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoinst.config import Config
    from autoinst.rules.load import Loader
    from autoinst.rules.model import RuleSet
    from autoinst.store.sqlite import Store

FULL_TOLD_NS = 86_400 * 10**9  # how long it is told that the spool was full
# Variable -> what is used without it, and the setting of a rules file that it goes before.
SETTINGS: dict[str, tuple[str | None, str | None]] = {
    "AUTOINST_ENABLED": ("1", None),
    "AUTOINST_RULES": (None, None),
    "AUTOINST_PACKS": ("default", "packs"),
    "AUTOINST_SERVICE": (None, "service"),
    "AUTOINST_ENVIRONMENT": (None, "environment"),
    "AUTOINST_REVISION": (None, "revision"),
    "AUTOINST_GROUP": (None, None),
    "AUTOINST_AGENT": ("auto", None),
    "AUTOINST_AGENT_IDLE": ("60", None),
    "AUTOINST_MECHANISM": (None, None),
    "AUTOINST_SPOOL_MAX": ("1G", None),
    "AUTOINST_RETENTION_DAYS": ("30", "retention.age"),
    "AUTOINST_STORE": (None, None),
    "AUTOINST_STORE_MAX": ("2G", "retention.size"),
    "AUTOINST_EXPORTERS": (None, "exporters"),
}
# What a process does not report of a rule that works.
FINE = ("patched", "skipped", "not imported")


def diagnose(config: Config) -> dict[str, Any]:
    """Return everything `doctor` prints; `attention` lists, in words, what a person should see to."""
    rules, loader = load_files(config.rules, config.packs)
    attention: list[str] = []
    out: dict[str, Any] = {
        "autoinst": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "boot": boot_folder(),
        "settings": list(settings(config, rules)),
        "home": home_facts(config, attention),
        "rules": rules_facts(config, rules, loader, attention),
    }
    store: dict[str, Any] = {"path": config.store, "exists": os.path.isfile(config.store)}
    store["bytes"] = store_size(config.store)
    out |= {"exporters": {"feeds": [], "parked": []}, "check_ins": []}
    out["server"] = None
    out |= {"store": store, "processes": [], "unavailable": [], "rule_statuses": []}
    out |= {"counted": [], "left_out": 0, "problems": []}
    try:
        with Home(config, local=True) as home:
            store["running"] = len(home.flying)
            if home.local is not None:
                store |= {"exists": True, "bytes": store_size(config.store), "jobs": home.local.count()}
                out |= store_facts(home.local, rules, attention)
            out["check_ins"] = check_ins(rules, home.local, home.flying, attention)
            out["exporters"] = exporters(config.home, rules, home.local, attention)
            out["server"] = server(home.local, attention)
    except AutoinstError as error:
        attention.append(str(error))
    attention += limits(os.environ, rules.settings)[1]
    out["agent"] = agent_facts(config, attention)
    out["spool"] = spool_facts(config, attention)
    out["attention"] = attention
    return out


def settings(config: Config, rules: RuleSet) -> Iterator[dict[str, Any]]:
    """Yield each setting's name, value and source: the environment, a rules file, or the default."""
    given = os.environ.get("AUTOINST_HOME")
    yield {"name": "AUTOINST_HOME", "value": config.home, "source": "environment" if given else "default"}
    for name, (default, key) in SETTINGS.items():
        text = os.environ.get(name) or None
        source, value = "environment", shown_address() if name == "AUTOINST_STORE" else text
        if text is None and name == "AUTOINST_RULES" and config.rules:
            source, value = "working directory", os.pathsep.join(config.rules)
        elif text is None:
            found = setting(rules, key) if key and key != "packs" else None
            source, value = ("rules file", found) if found is not None else ("default", default)
        yield {"name": name, "value": value, "source": source}


def setting(rules: RuleSet, key: str) -> Any:
    """Return what the rules files say of `key`, or of `mapping.key`; None if nothing."""
    section, _, name = key.partition(".")
    found = rules.settings.get(section)
    if section == "exporters" and found:
        return ",".join(found)  # what is set of them may be secret
    return found.get(name) if found and name else found


def home_facts(config: Config, attention: list[str]) -> dict[str, Any]:
    """Return where the home is and whether a worker of this user could write there."""
    path = config.home
    # What does not exist yet can be made if the nearest folder that exists is writable.
    nearest = path
    while not os.path.exists(nearest) and os.path.dirname(nearest) != nearest:
        nearest = os.path.dirname(nearest)
    reason = path_problem(path) or write_problem(nearest)
    kind = file_system(nearest)
    owner = owner_of(path)
    foreign = owner is not None and owner != os.geteuid()
    if foreign:
        attention.append(f"{path} belongs to user {user_name(owner or 0)}: you may look, and nothing of yours is kept")
    elif reason:
        attention.append(f"nothing can be recorded: {reason}; set AUTOINST_HOME to a folder you can write")
    if kind in NETWORK:
        attention.append(f"{path} is on {kind}, a network file system; set AUTOINST_HOME to a local folder")
    shared = sharing_problem(path, config.group)
    if shared and not foreign:
        attention.append(shared)
    writable = reason is None and not foreign
    return {"path": path, "exists": os.path.isdir(path), "writable": writable, "file_system": kind}


def path_problem(path: str) -> str | None:
    """Return why `path` can never be a folder, such as a name that is too long; None if it is one or just missing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError) as error:
        return f"{path[:60]}...: {getattr(error, 'strerror', None) or error}"
    return None


def write_problem(folder: str) -> str | None:
    """Return why nothing can be written in `folder`, None if it can: it is tried, since modes do not tell all."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".autoinst-", dir=folder))
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return None


def rules_facts(config: Config, rules: RuleSet, loader: Loader, attention: list[str]) -> dict[str, Any]:
    """Return which rules would be in force for a program started now, and what is wrong in them."""
    problems = [problem.to_json() for problem in loader.problems]
    if problems:
        attention.append(f"{len(problems)} problem(s) in the rules; a bad rule is left out, the others work")
    own = len([rule for rule in rules.rules if rule.pack is None])
    return {
        "files": list(config.rules),
        "digest": rules.digest,
        "own": own,
        "from_packs": len(rules.rules) - own,
        "packs": pack_facts(rules, attention),
        "problems": problems,
    }


def agent_facts(config: Config, attention: list[str]) -> dict[str, Any]:
    """Return which agent leads the home, and the last line of its log."""
    found = leader(config.home)
    line = last_line(config.home)
    if found is not None and found.is_agent:
        return {"pid": found.pid, "log": line}
    if line is not None and line.startswith(NOT_STARTED) and config.agent not in OFF_WORDS:
        attention.append(f"agent {line}; have `autoinst agent --foreground` run beside it")
    return {"pid": None, "log": line}


def spool_facts(config: Config, attention: list[str]) -> dict[str, Any]:
    """Return what lies in the spool folder, unreadable files set aside included."""
    names = listing(config.spool)
    arenas = [name for name in names if name.endswith(".arena")]
    quarantine = os.path.join(config.spool, QUARANTINE_NAME)
    quarantined = [os.path.join(quarantine, name) for name in listing(quarantine) if not name.endswith(".reason")]
    if quarantined:
        attention.append(f"{len(quarantined)} file(s) could not be read and were moved to {quarantine}")
    last = int(modified(os.path.join(config.spool, FULL_NAME)) * 1e9)
    if time.time_ns() - last < FULL_TOLD_NS:
        attention.append(
            f"the spool was full, last at {rfc3339(last)}, and new processes only counted their jobs:"
            " have `autoinst agent` run, or raise AUTOINST_SPOOL_MAX"
        )
    taken = sum(size(os.path.join(config.spool, name)) for name in arenas)
    return {"path": config.spool, "arenas": len(arenas), "bytes": taken, "quarantined": quarantined}


def store_facts(store: Store, rules: RuleSet, attention: list[str]) -> dict[str, Any]:
    """Return what the store knows of processes, of their rules, of jobs that were only counted, and of problems."""
    processes = store.processes(limit=RECENT_PROCESSES)
    statuses = rule_statuses(processes, rules)
    attention += [
        f"rule {row['rule']}: {row['status']}{': ' + row['detail'] if row['detail'] else ''}"
        for row in statuses
        if row["status"] not in FINE
    ]
    attention += [
        f"process {process.pid} keeps the rules read before: {process.status['stale']}"
        for process in processes
        if process.ended_ns is None and process.status and process.status.get("stale")
    ]
    totals = store.totals(0, time.time_ns() + 3600 * 10**9)
    counted: list[dict[str, Any]] = [
        {"action": action, "jobs": cell.counted, "errors": cell.counted_errors}
        for action, cell in totals.items()
        if cell.counted
    ]
    if counted:
        total = sum(row["jobs"] for row in counted)
        attention.append(f"{total} job(s) found no room in the spool and were only counted")
    problems = [
        {
            "kind": problem.kind,
            "detail": problem.detail,
            "times": problem.times,
            "first_at": rfc3339(problem.first_ns),
            "last_at": rfc3339(problem.last_ns),
        }
        for problem in store.problems()
    ]
    attention += [f"{problem['kind']}: {problem['detail']} ({problem['times']} times)" for problem in problems]
    facts = [process_facts(process) for process in processes]
    return {
        "processes": facts,
        "unavailable": unavailable_values(facts),
        "rule_statuses": statuses,
        "counted": counted,
        "left_out": sum(cell.left_out for cell in totals.values()),
        "problems": problems,
    }


def listing(folder: str) -> list[str]:
    """Return the names in a folder, none where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def modified(path: str) -> float:
    """Return when a file was written last (seconds since the epoch), 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def store_size(path: str) -> int:
    """Return how many bytes a store takes: where somebody has it open, what was written last is in its log."""
    return size(path) + size(f"{path}-wal")


def size(path: str) -> int:
    """Return a file's size in bytes, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
