"""The jobs of a small shop. Nothing here knows of autoinst: rules.yaml names what is to be seen."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from typing import Any

DATABASE = sqlite3.connect(":memory:")
DATABASE.execute("CREATE TABLE item(number INTEGER, name TEXT, price REAL)")
DATABASE.executemany("INSERT INTO item VALUES(?, ?, ?)", [(n, f"item {n}", n * 1.5) for n in range(1000)])


class OrderCancelled(Exception):  # noqa: N818 - not an error: the customer changed their mind
    """The order a job is about is not wanted any more."""


class GatewayTimeout(Exception):  # noqa: N818 - named as the gateway names it
    """The payment gateway did not answer in time; worth another try."""


class Job:
    """A job on a queue: `due_at` is in seconds since the epoch, `attempt` counts from 1."""

    queue = "default"
    tries = 1

    def __init__(self, number: str, due_at: float, **arguments: Any) -> None:
        """Note what the queue knows of the job."""
        self.number = number
        self.due_at = due_at
        self.arguments = arguments
        self.attempt = 1

    def perform(self) -> None:
        """Do the work."""
        raise NotImplementedError


class InvoiceMailer(Job):
    """Renders an invoice and sends it."""

    queue = "mail"

    def perform(self) -> None:
        """Find the items, render them, send the mail."""
        order = self.arguments["order"]
        if order < 0:
            raise OrderCancelled(f"order {-order} was cancelled by the customer")
        items = query("SELECT name, price FROM item WHERE number BETWEEN ? AND ?", order, order + 2)
        invoice = render("invoice.html", items)
        send_email(f"customer-{order}@shop.example", invoice)


class PaymentCapture(Job):
    """Captures a payment; the gateway does not always answer at once."""

    queue = "payments"
    tries = 3

    def perform(self) -> None:
        """Ask the gateway, which answers on the third try."""
        try:
            post("https://gateway.example/capture", self.attempt)
        except TimeoutError as error:
            raise GatewayTimeout(f"order {self.arguments['order']}: no answer, try {self.attempt}") from error


class StockReport(Job):
    """Adds up what lies in the warehouse, one query for each item: slow, and it shows why."""

    queue = "reports"

    def perform(self) -> None:
        """Query item by item, then render."""
        total = 0.0
        for number in range(self.arguments["items"]):
            total += query("SELECT price FROM item WHERE number = ?", number)[0][0]
            time.sleep(0.04)
        render("stock.html", [("total", total)])


class PriceImport(Job):
    """Reads prices from a supplier's file, which has a line that is none."""

    queue = "imports"

    def perform(self) -> None:
        """Parse each line."""
        for line in self.arguments["lines"]:
            parse_price(line)


class VideoThumbnail(Job):
    """Takes more memory than there is, so the kernel ends its process."""

    queue = "media"

    def perform(self) -> None:
        """Render frames, and encode them."""
        render("frames", [])
        encode(self.arguments["film"])


def parse_price(line: str) -> float:
    """Return the price in a line such as `apple;1.20`."""
    name, _, price = line.partition(";")
    if not name:
        raise ValueError(f"a line without a name: {line!r}")
    return float(price)


def send_email(address: str, text: str) -> None:
    """Send a mail; it is a job too, and inside another one it shows as an event of that."""
    post(f"smtp://mail.example/{address}", 3, len(text))


def query(sql: str, *values: int) -> list[Any]:
    """Return the rows of a query."""
    return DATABASE.execute(sql, values).fetchall()


def render(template: str, rows: list[Any]) -> str:
    """Return the text of a template."""
    time.sleep(0.03)
    return template + "".join(str(row) for row in rows)


def encode(film: int) -> None:
    """Need too much memory while encoding: what the kernel does then is done here at once."""
    time.sleep(0.05 + film / 1000)
    os.kill(os.getpid(), signal.SIGKILL)


def post(url: str, attempt: int, size: int = 0) -> None:
    """Stand for a request over a network: it takes a while, and the first two times nobody answers."""
    time.sleep(0.02 + size / 1e6)
    if attempt < 3:
        raise TimeoutError(f"{url}: timed out")
