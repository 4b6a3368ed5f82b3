"""Which packs of ready-made rules are on, and where their files lie."""

from __future__ import annotations

import os

from autoinst.rules.problems import nearest

SUFFIX = ".yaml"
ENTRY_POINTS = "autoinst.rules"
# They would see more than jobs, so they are on only where they are named.
OPT_IN = frozenset({"click", "django-commands", "futures", "kombu", "mppool", "pika", "sqs", "typer"})
WORDS = ("default", "none")

Wrong = tuple[int, str, "str | None"]


def builtin_folder() -> str:
    """Return the folder of the built-in packs: in an installed package, or of a source checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "packs")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "rules")


def builtin_packs(folder: str | None = None) -> dict[str, str]:
    """Return the file of each built-in pack by its name, in alphabetical order."""
    folder = builtin_folder() if folder is None else folder
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    return {name[: -len(SUFFIX)]: os.path.join(folder, name) for name in names if name.endswith(SUFFIX)}


def words(text: str) -> list[str]:
    """Return the words of AUTOINST_PACKS: separated by commas or blanks."""
    return text.replace(",", " ").split()


def choose(wanted: list[str] | None, builtin: dict[str, str]) -> tuple[dict[str, str], list[Wrong]]:
    """Return the files of the packs that are on, by name, and what is wrong: (index in `wanted`, message, hint).

    None means the default packs, as do words that only take packs away. A pack that is not built in is looked for among
    the entry points of the group `autoinst.rules`, whose value names a package that holds `<name>.yaml`.
    """
    if wanted is None or all(word.startswith("-") for word in wanted):
        wanted = ["default", *(wanted or [])]
        shift = 1
    else:
        shift = 0
    on: dict[str, str] = {}
    problems: list[Wrong] = []
    for index, word in enumerate(wanted):
        if word == "none":
            on.clear()
        elif word == "default":
            on.update((name, file) for name, file in builtin.items() if name not in OPT_IN)
        elif word.startswith("-"):
            if on.pop(word[1:], None) is None and word[1:] not in builtin:
                problems.append((index - shift, f"there is no pack {word[1:]!r}", nearest(word[1:], builtin)))
        else:
            file = builtin.get(word) or installed_pack(word)
            if file is None:
                hint = nearest(word, (*builtin, *WORDS))
                problems.append((index - shift, f"there is no pack {word!r}", hint))
            else:
                on[word] = file
    return on, problems


def installed_pack(name: str) -> str | None:
    """Return the file of a third-party pack, without importing its package; None if there is none of that name."""
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=name):
        distribution = point.dist
        if distribution is not None:
            path = os.path.join(*point.value.partition(":")[0].split("."), name + SUFFIX)
            found = str(distribution.locate_file(path))
            if os.path.isfile(found):
                return found
    return None
