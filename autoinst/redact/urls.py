"""URLs without credentials and without the values of their queries."""

from __future__ import annotations

MAX_LENGTH = 4_000


def sanitized_in(text: str) -> str:
    """Return `text` with every URL in it sanitised, those without a host too."""
    if "//" not in text and "?" not in text:
        return text
    return " ".join(sanitized(word) if "//" in word or word[:1] == "/" else word for word in text.split(" "))


def sanitized(url: str) -> str:
    """Return `url` without user and password, the values of its query as `?`, and without its fragment."""
    url = url[:MAX_LENGTH].partition("#")[0]
    address, mark, query = url.partition("?")
    scheme, separator, rest = address.partition("//")
    if separator:
        host, slash, path = rest.partition("/")
        address = f"{scheme}//{host.rpartition('@')[2]}{slash}{path}"
    if not mark:
        return address
    names = [part.partition("=") for part in query.replace(";", "&").split("&")]
    # what has no value may be one
    return f"{address}?{'&'.join(f'{name}=?' if equals else '?' for name, equals, _ in names)}"
