"""A request has a limit in all, whatever part of it the other end draws out; and only a whole answer is one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from autoinst import posting
from tests import hostile
from tests.hostile import Receiver, status

pytestmark = pytest.mark.once

LONG = 40.0  # seconds that only what has no limit takes
SECONDS = 0.7


@pytest.fixture
def poster():
    found = posting.Poster(context=posting.tls())
    yield found
    found.close()


def late(poster, url):
    began = time.monotonic()
    with pytest.raises(posting.NoAnswerError) as raised:
        poster.post(url, b"body", {}, seconds=SECONDS, most=10**6)
    assert time.monotonic() - began < LONG
    assert (str(raised.value), raised.value.late) == ("no answer within 0.7 s", True)


def trickled_body(handler):
    """Answer at once, and send the body a byte at a time."""
    handler.sent()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with contextlib.suppress(OSError):
        while not handler.receiver.released.wait(0.02):
            handler.wfile.write(b"x")
    handler.close_connection = True


@pytest.mark.parametrize("behaviour", [hostile.hang, hostile.trickle, trickled_body])
def test_an_answer_that_is_drawn_out(poster, behaviour):
    with Receiver() as receiver:
        assert poster.post(receiver.url, b"{}", {}, seconds=30, most=10).status == 200
        receiver.behave(behaviour, behaviour)
        late(poster, receiver.url)  # over the connection that was kept
        late(poster, receiver.url)
        assert poster.post(receiver.url, b"{}", {}, seconds=30, most=10).body == b"{}"


def test_a_handshake_that_is_drawn_out(poster):
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def dawdle():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # a long ServerHello begins
            while not ended.wait(0.02):
                connection.sendall(b"x")

    thread = threading.Thread(target=dawdle)
    thread.start()
    try:
        late(poster, f"https://127.0.0.1:{listener.getsockname()[1]}/")
    finally:
        ended.set()
        thread.join()
        listener.close()


def test_half_an_answer_is_none(poster):
    with Receiver() as receiver:
        receiver.behave(hostile.half_an_answer)
        with pytest.raises(posting.NoAnswerError) as raised:
            poster.post(receiver.url, b"{}", {}, seconds=30, most=10**6)
        assert not raised.value.late


def test_more_than_was_asked_for_is_not_whole(poster):
    with Receiver() as receiver:
        receiver.behave(status(200, b"x" * 100), status(200, b"x" * 100))
        found = poster.post(receiver.url, b"{}", {}, seconds=30, most=99)
        assert (len(found.body), found.whole) == (99, False)
        found = poster.post(receiver.url, b"{}", {}, seconds=30, most=101)
        assert (len(found.body), found.whole) == (100, True)
