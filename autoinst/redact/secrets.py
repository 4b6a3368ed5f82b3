"""Secrets in texts: keys of well-known services, tokens, private keys, passwords in addresses, card numbers.

A text is looked at closely only if it may have one (`suspicious`): most have not, and `re` is then not imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from re import Match, Pattern

FILTERED = "[FILTERED]"
LEAST = 8  # characters: no secret that can be told is shorter
CARD_DIGITS = (13, 19)
LEAST_CARD = 10**12
# In lower case; each of the patterns below has one of them.
MARKERS = (
    *("akia", "asia", "abia", "acca", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
    *("_live_", "_test_", "whsec_", "aiza", "sk-", "npm_", "hf_", "sg.", "eyj", "private key", "bearer ", "basic "),
)
# As their makers describe them, shorter lengths included.
_KEYS = r"""
    \b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b
  | \b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,255}
  | \bglpat-[A-Za-z0-9_-]{20,255}
  | \bxox[abeoprs]-[A-Za-z0-9-]{10,255}
  | \b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,255}
  | \bwhsec_[A-Za-z0-9+/=]{10,255}
  | \bAIza[A-Za-z0-9_-]{35}
  | \bsk-[A-Za-z0-9_-]{20,255}
  | \bnpm_[A-Za-z0-9]{30,255}
  | \bhf_[A-Za-z0-9]{30,255}
  | \bSG\.[A-Za-z0-9_-]{16,255}\.[A-Za-z0-9_-]{16,255}
  | \beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}
  | -----BEGIN\ [A-Z0-9\ ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----(?:.*?-----END\ [A-Z0-9\ ]{0,40}-----|.*)
"""
_TOKENS = r"\b(bearer|basic)\s{1,3}(?=[A-Za-z._~+/-]{0,255}[0-9=])[A-Za-z0-9._~+/=-]{8,}"
_CREDENTIALS = r"://[^\s/?#'\"<>]{1,255}@"
_DIGITS = r"[0-9](?:[ -]?[0-9]){12,255}"
_VALUE = (
    r"""(?:"(?:[^"\\]|\\.)*(?:"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|(\\+["']).*?(?:\2|\Z)"""
    r"""|(?:bearer |basic )?[^\s,;&|)}\]>"']+)"""
)

_WORDS = {code: "0" if chr(code).isdigit() else " " for code in range(128)}  # runs of digits, as words

_patterns: list[Pattern[str]] = []
_named: dict[tuple[str, ...], Pattern[str]] = {}


def suspicious(text: str) -> bool:
    """Return whether `text` may have a secret in it that is known by its look."""
    if "@" in text and "://" in text:  # an address may have a password, but most have no user at all
        return True
    low = text.lower()
    for marker in MARKERS:
        if marker in low:
            return True
    return _may_have_card(low)


def _may_have_card(text: str) -> bool:
    """Return whether so many digits may stand in a row; those of an address, a port and a path stand apart."""
    if sum(map(text.count, "0123456789")) < CARD_DIGITS[0]:
        return False
    words = text.replace(" ", "").replace("-", "").translate(_WORDS).split()
    return max(map(len, words), default=0) >= CARD_DIGITS[0]


def mentions(text: str, names: Sequence[str]) -> bool:
    """Return whether `text` may give one of `names` (lower case) a value, as in `password=...`."""
    if "=" not in text and ":" not in text:
        return False
    low = text.lower().replace("-", "_")
    for name in names:  # noqa: SIM110 - half as long without a generator
        if name in low:
            return True
    return False


def masked(text: str) -> str:
    """Return `text` with everything that looks like a secret or a card's number filtered."""
    if not _patterns:
        import re

        _patterns.append(re.compile(_KEYS, re.VERBOSE | re.DOTALL))
        _patterns.append(re.compile(_TOKENS, re.IGNORECASE))
        _patterns.append(re.compile(_CREDENTIALS))
        _patterns.append(re.compile(_DIGITS))
    keys, tokens, credentials, digits = _patterns
    text = keys.sub(FILTERED, text)
    text = tokens.sub(rf"\1 {FILTERED}", text)
    text = credentials.sub(f"://{FILTERED}@", text)
    return digits.sub(_without_cards, text)


def masked_named(text: str, names: tuple[str, ...]) -> str:
    """Return `text` with the values filtered that it gives to `names` (lower case, `_` for `-` too)."""
    found = _named.get(names)
    if found is None:
        import re

        words = "|".join(re.escape(name).replace("_", "[_-]?") for name in names)
        # bounded everywhere: a long text takes time in proportion
        pattern = rf"""((?:{words})[\w-]{{0,40}}(?:\\*["'])?\s{{0,4}}[=:]\s{{0,4}}(?:[bu](?=["']))?){_VALUE}"""
        found = _named[names] = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return found.sub(rf"\1{FILTERED}", text)


def _without_cards(found: Match[str]) -> str:
    """Return a run of digits, blanks and hyphens without the cards' numbers that begin and end with a group of it."""
    text = found[0]
    out = ""
    at = 0
    while at < len(text):
        end = _end_of_card(text, at) if at == 0 or not text[at - 1].isdigit() else 0
        out += FILTERED if end else text[at]
        at = end or at + 1
    return out


def _end_of_card(text: str, start: int) -> int:
    """Return where a card's number ends that starts there, 0 if none does."""
    digits = ""
    for at in range(start, len(text)):
        if not text[at].isdigit():
            continue
        digits += text[at]
        is_end = at + 1 == len(text) or not text[at + 1].isdigit()
        if is_end and len(digits) >= CARD_DIGITS[0] and is_card(digits):
            return at + 1
        if len(digits) >= CARD_DIGITS[1]:
            break
    return 0


def is_card(digits: str) -> bool:
    """Return whether `digits` can be the number of a payment card: its prefix, length and check digit are right."""
    if not _is_issued(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)  # noqa: PLR2004 - Luhn's sum of digits
    return total % 10 == 0


def _is_issued(digits: str) -> bool:
    """Return whether a network of cards has numbers of that beginning and length (ISO/IEC 7812)."""
    size, start = len(digits), int(digits[:4])
    ranges = {
        13: ((4000, 4999),),
        14: ((3000, 3059), (3600, 3699), (3800, 3899)),
        15: ((3400, 3499), (3700, 3799)),
        16: (
            *((2221, 2720), (3528, 3589), (4000, 4999), (5100, 5599), (6011, 6011), (6200, 6299)),
            *((6440, 6499), (6500, 6599)),
        ),
        19: ((4000, 4999), (6200, 6299)),
    }
    return any(low <= start <= high for low, high in ranges.get(size, ()))
