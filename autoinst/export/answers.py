"""What became of a request, and what follows from it."""

from __future__ import annotations

import email.utils
import enum
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from autoinst.posting import Response

LONGEST_RETRY_AFTER = 3600.0  # seconds; a receiver may ask for longer, and is asked again after that
SNIPPET = 200  # characters shown of an answer's body
REQUEST_TIMEOUT, TOO_LARGE, UNPROCESSABLE, TOO_EARLY, TOO_MANY = 408, 413, 422, 425, 429
BAD_REQUEST, OK, MULTIPLE_CHOICES, SERVER_ERROR = 400, 200, 300, 500


class Verdict(enum.Enum):
    """What to do with the batch."""

    ACCEPTED = "accepted"  # go on
    SPLIT = "split"  # too large: send less at once
    REFUSED = "refused"  # something in it is unacceptable for good: find out what, and park it
    LATER = "later"  # the same again after a while
    WRONG = "wrong"  # the same again after a longer while: somebody has to see to the settings, and nothing is lost


class Answer(NamedTuple):
    """A verdict and what it rests on, in words; `retry_after` are seconds the receiver asks for.

    Of what was accepted, `rejected` items were dropped by the receiver. `posts` requests of `size` bytes were made.
    """

    verdict: Verdict
    text: str
    retry_after: float | None = None
    rejected: int = 0
    posts: int = 1
    size: int = 0


def accepted(response: Response, size: int) -> Answer | None:
    """Return that a receiver which only tells by its status took `size` bytes; None where it did not.

    A web page is no answer of such a receiver, but of a proxy or a login.
    """
    if not OK <= response.status < MULTIPLE_CHOICES:
        return None
    if response.content_type == "text/html" and response.body.lstrip()[:1] == b"<":
        return Answer(Verdict.WRONG, f"answered {response.status} with a web page: that is no receiver", size=size)
    return Answer(Verdict.ACCEPTED, f"answered {response.status}", size=size)


def judge(response: Response, told: str = "") -> Answer:
    """Return what a response means that is no success; `told` is what its body says, if that could be read."""
    status = response.status
    text = f"answered {status}"
    detail = told or _snippet(response)
    if detail:
        text += f": {detail}"
    if MULTIPLE_CHOICES <= status < BAD_REQUEST:
        return Answer(Verdict.WRONG, f"{text}, {response.redirection}: set the endpoint to where it is")
    if status == TOO_LARGE:
        return Answer(Verdict.SPLIT, text)
    if status in (BAD_REQUEST, UNPROCESSABLE):
        return Answer(Verdict.REFUSED, text)
    if status in (REQUEST_TIMEOUT, TOO_EARLY, TOO_MANY) or status >= SERVER_ERROR:
        return Answer(Verdict.LATER, text, retry_after(response.headers.get("retry-after")))
    return Answer(Verdict.WRONG, text)


def retry_after(text: str | None) -> float | None:
    """Return the seconds a Retry-After header asks for (a number, or an HTTP date); None where it says nothing."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return min(max(moment.timestamp() - time.time(), 0.0), LONGEST_RETRY_AFTER)


def _snippet(response: Response) -> str:
    kind = response.content_type
    if not (kind.startswith("text/") or kind.endswith("json")) or kind == "text/html":
        return ""
    return " ".join(response.body.decode("utf-8", "replace").split())[:SNIPPET]
