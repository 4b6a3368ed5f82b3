"""SQL without its literals: strings and numbers become `?`, comments go, lists of values become one.

What cannot be told apart for sure is dropped as a whole: an open quote or comment, a character that no SQL has, quotes
that mean another thing where a backslash escapes and where it does not.
"""

from __future__ import annotations

import re

from autoinst.redact.dialects import CAREFUL, IDENTIFIER, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LENGTH = 8_000  # characters that are looked at; what lies beyond is left out
MAX_KNOWN = 500
PLACEHOLDER = "?"
BEFORE_NAMES = frozenset({"from", "join", "into", "update", "table", "as", "index", "view", "only"})

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<line>--[^\n]*|\#[^\n]*)
  | (?P<comment>/\*)
  | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
  | (?P<oracle>\b[nN]?[qQ]'(?P<open>[^\s\w']))
  | (?P<escaped>\b[eE]')
  | (?P<prefixed>(?:\b(?:[nNbBxX]|_\w+\s*)|\b[uU]&)?')
  | (?P<double>(?:\b[uU]&)?")
  | (?P<backtick>`(?:[^`]|``)*`)
  | (?P<parameter>[$?]\d+\b|(?<![:\w\]]):\d+\b|(?<![:\w])[:@][^\W\d]\w*|%\([^)'"]{1,100}\)s|%s|\?)
  | (?P<number>(?:\.\d|\d)(?:\w|\.(?=\w)|(?<=[eE])[+-](?=\d))*\.?)
  | (?P<word>[^\W\d][\w$#]*)
  | (?P<mark>[\[\]()*/+\-<>=~!@%&|^.,;:{}#$])
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"'(?:[^']|'')*'", re.DOTALL)
_PLAIN_ESCAPES = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_DOUBLE = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
_DOUBLE_ESCAPES = re.compile(r'"(?:[^"\\]|\\.|"")*"', re.DOTALL)
_QUOTES = frozenset("'\"`$")
_CLOSING = {"[": "]", "(": ")", "{": "}", "<": ">"}
_VALUE = r"(?:-?\?|%s|%\(\w+\)s|[$:@?]\d+|[:@]\w+)"
_LIST = re.compile(rf"\( ?{_VALUE}(?: ?, ?{_VALUE})+ ?\)")
_LISTS = re.compile(r"\(\?\)(?: ?, ?\(\?\))+")
_SIGN = re.compile(r"(?<=[=(<>,])( ?)[-+] ?\?")

_known: dict[tuple[str, str], str | None] = {}
_UNKNOWN = "-- not known"  # no statement: a comment does not stay in one


def sanitized(text: str, dialect: str = CAREFUL) -> str | None:
    """Return `text` without literals and comments, None where it cannot be read for sure."""
    text = text[: MAX_LENGTH + 1]  # no more is looked at, nor kept: a program may send megabytes
    key = (text, dialect)
    found = _known.get(key, _UNKNOWN)  # in one step: another thread may clear it
    if found is not _UNKNOWN:
        return found
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    found = _known[key] = _sanitized(text, dialect)
    return found


def verb(text: str) -> str | None:
    """Return what a sanitised statement does, such as SELECT; None where that does not come first."""
    word = text[:20].partition(" ")[0].partition("(")[0]
    return word.upper() if word.isascii() and word.isalpha() else None


class _Unreadable(Exception):  # noqa: N818 - an answer, no error
    """The text cannot be told apart."""


def _sanitized(text: str, dialect: str) -> str | None:
    cut = len(text) > MAX_LENGTH
    text = text[:MAX_LENGTH]
    usual = dialect == STRING  # only the server knows whether a backslash is special in '...'; in MySQL it is, usually
    found = _reading(text, dialect, usual, cut)
    if "\\" in text:
        other = _reading(text, dialect, not usual, cut)
        # Who is sure of the usual reading may take the other's open quote for proof that it is wrong.
        if other != found and (other is not None or dialect == CAREFUL):
            return None
    if found is None:
        return None
    found = _SIGN.sub(r"\1?", found)
    found = _LISTS.sub("(?)", _LIST.sub("(?)", found))
    return f"{found} ..." if cut else found


def _reading(text: str, dialect: str, escapes: bool, cut: bool) -> str | None:
    try:
        return _read(text, dialect, escapes, cut)
    except _Unreadable:
        return None


def _read(text: str, dialect: str, escapes: bool, cut: bool) -> str:
    out: list[str] = []
    at, end = 0, len(text)
    previous = ""  # the last token that is no blank
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise _Unreadable
        kind = found.lastgroup or ""
        kind = "oracle" if kind == "open" else kind
        reader = _READERS.get(kind)
        if reader is not None:
            at, token = reader(text, found, escapes)
            if at > end:  # it is not closed
                if not cut:
                    raise _Unreadable
                break
        else:
            at, token = found.end(), found.group()
        if kind == "double":
            token = _double(token, text, at, previous, dialect)
        elif kind == "number":
            token = PLACEHOLDER
        elif kind == "line" and not _is_comment(token, dialect):
            at, token = found.start() + 1, token[0]  # an operator of PostgreSQL's
        elif kind in ("space", "comment", "line"):
            if out and out[-1] != " ":
                out.append(" ")
            continue
        out.append(token)
        previous = token
    return "".join(out).strip()


def _is_comment(line: str, dialect: str) -> bool:
    """Return whether what begins like a comment to the end of the line is one; raise where it depends."""
    if line[0] == "#":
        if dialect == IDENTIFIER:
            return False
        certain = dialect == STRING
    else:  # in MySQL a blank has to follow
        certain = dialect == IDENTIFIER or len(line) == len("--") or line[2].isspace()
    if not certain and not _QUOTES.isdisjoint(line):
        raise _Unreadable
    return True


def _until(text: str, closing: str, start: int) -> int:
    found = text.find(closing, start)
    return len(text) + 1 if found < 0 else found + len(closing)


def _comment(text: str, found: re.Match[str], _escapes: bool) -> tuple[int, str]:
    end = _until(text, "*/", found.end())
    if "/*" in text[found.end() : end]:  # PostgreSQL nests them, others do not
        raise _Unreadable
    return end, ""


def _dollar(text: str, found: re.Match[str], _escapes: bool) -> tuple[int, str]:
    return _until(text, found.group(), found.end()), "?"


def _oracle(text: str, found: re.Match[str], _escapes: bool) -> tuple[int, str]:
    opening = found["open"]
    return _until(text, f"{_CLOSING.get(opening, opening)}'", found.end()), "?"


def _matched(text: str, pattern: re.Pattern[str], start: int) -> int:
    found = pattern.match(text, start)
    return len(text) + 1 if found is None else found.end()


def _prefixed(text: str, found: re.Match[str], escapes: bool) -> tuple[int, str]:
    return _matched(text, _PLAIN_ESCAPES if escapes else _PLAIN, found.end() - 1), "?"


def _quoted(text: str, found: re.Match[str], escapes: bool) -> tuple[int, str]:
    end = _matched(text, _DOUBLE_ESCAPES if escapes else _DOUBLE, found.end() - 1)
    return end, text[found.start() : end]


def _double(token: str, text: str, at: int, previous: str, dialect: str) -> str:
    """Return what stands for a "..." that ends at `at`: itself if it is a name for sure."""
    if dialect == IDENTIFIER:
        return token
    if dialect == CAREFUL and (previous == "." or previous.lower() in BEFORE_NAMES or text[at : at + 1] == "."):
        return token
    return "?"


_READERS: dict[str, Callable[[str, re.Match[str], bool], tuple[int, str]]] = {
    "comment": _comment,
    "dollar": _dollar,
    "oracle": _oracle,
    "escaped": lambda text, found, _escapes: (_matched(text, _PLAIN_ESCAPES, found.end() - 1), "?"),
    "prefixed": _prefixed,
    "double": _quoted,
}
