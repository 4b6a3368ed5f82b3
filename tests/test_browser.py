"""The web page in a real browser: accessible, quiet, live, by keyboard alone, without scripts, with hostile text."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from autoinst.config import make_private
from autoinst.store.sqlite import Store
from tests import webdata
from tests.browser import chromium, tab
from tests.launching import AUTOINST, environment
from tests.web_pages import PAGES, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.browser import Tab
    from tests.web_pages import Ui

pytestmark = [pytest.mark.once, pytest.mark.service]

TOKEN = "correct horse battery"
AT_ONCE_SECONDS = 3.0
HOSTILE = "id:686f7374696c6521"  # webdata.hostile's
# A real worker: runs a job for each line it reads, and says so.
WORKER = """
import sys

class Greeter:
    def perform(self, name):
        return name

for line in sys.stdin:
    Greeter().perform(line.strip())
    print("done", flush=True)
"""
RULES = """
version: 1
jobs:
  - class: __main__.Greeter
    methods: [perform]
    payload: {queue: live, args: "${args}"}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("browser") / "home"
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=2)
        webdata.retried(store, now)
        webdata.trouble(store, now)
        webdata.hostile(store, now - webdata.HOUR)
    return home


@pytest.fixture(scope="module")
def ui(home: Path) -> Iterator[Ui]:
    with serving(home) as ui:
        yield ui


def addresses(ui: Ui) -> list[str]:
    """Return an address of every kind of page, those about hostile text among them."""
    searches = ("error:CardDeclined", "action:StockReport", "job:P-1", "status:killed")
    hostile = ui.json("/jobs", q=HOSTILE)["jobs"]
    jobs = [*(ui.json("/jobs", q=text)["jobs"][0]["id"] for text in searches), *(job["id"] for job in hostile)]
    errors = [error["fingerprint"] for error in ui.json("/errors")["errors"]]
    actions = ["shop.mail.InvoiceMailer#perform", hostile[-1]["action"]]
    return [
        *PAGES,
        *(f"/jobs/{each}" for each in jobs),
        *(f"/errors/{each}" for each in (errors[0], *errors[-2:])),
        *(f"/action?name={quote(each)}" for each in actions),
        *("/queries?kind=all", "/errors?state=all", "/actions?sort=jobs&range=7d", "/jobs?q=acton:x", "/nowhere"),
    ]


def test_every_page_is_accessible_quiet_and_fits_a_phone(browser: Browser, ui: Ui) -> None:
    with tab(browser, ui.address) as window:
        for path in addresses(ui):
            window.page.goto(path)
            assert window.violations() == [], path
            assert window.overflow() <= 0, path
            assert window.wrong == [], path
            assert window.page.evaluate("document.querySelectorAll('script, img, style, [onerror]').length") == 1, path


def test_the_login_and_an_empty_store(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "home", AUTOINST_UI_TOKEN=TOKEN) as ui, tab(browser, ui.address) as window:
        page = window.page
        page.goto("/jobs")
        assert page.url.endswith("/login")
        assert window.violations() == []
        page.keyboard.type("not the token")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert window.violations() == []
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="No job has been recorded yet").wait_for()
        for path in PAGES:
            page.goto(path)
            assert window.violations() == [], path
            assert window.overflow() <= 0, path


class Greeter:
    """A worker under `autoinst run` that does a job when asked."""

    def __init__(self, home: Path, folder: Path) -> None:
        (folder / "greeter.py").write_text(WORKER)
        (folder / "rules.yaml").write_text(RULES)
        command = [AUTOINST, "run", "--rules", "rules.yaml", "greeter.py"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def work(self, name: str) -> float:
        """Have it do one job, and return when that was done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        return time.monotonic()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def greeter(home: Path, tmp_path: Path) -> Iterator[Greeter]:
    made = Greeter(home, tmp_path)
    yield made
    made.end()


def wait_for_row(window: Tab, number: int) -> None:
    """Wait until there are so many rows."""
    window.page.locator("tbody tr").nth(number - 1).wait_for()


def rows(window: Tab) -> int:
    return window.page.locator("tbody tr").count()


def test_a_job_that_ends_is_seen_without_a_reload(browser: Browser, ui: Ui, greeter: Greeter) -> None:
    greeter.work("first")
    with tab(browser, ui.address) as window:
        page = window.page
        page.goto("/jobs?q=queue:live")
        wait_for_row(window, 1)
        page.evaluate("window.kept = document.querySelector('tbody tr')")
        page.keyboard.press("j")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('tbody tr .when'))")
        selected = page.evaluate("getSelection().toString()")
        waited: list[float] = []
        while not waited or (min(waited) > AT_ONCE_SECONDS and len(waited) < 10):
            known = rows(window)
            done = greeter.work(f"number {known}")
            wait_for_row(window, known + 1)
            waited.append(time.monotonic() - done)
        assert min(waited) <= AT_ONCE_SECONDS
        assert page.evaluate("window.kept.isConnected && window.kept.contains(document.activeElement)")
        # Not the first word: at midnight the day comes before the time.
        assert selected.split()[0] in page.evaluate("getSelection().toString()").split()
        assert page.evaluate("document.querySelector('tbody').lastElementChild === window.kept")


def test_live_is_switched_off_and_on(browser: Browser, ui: Ui, greeter: Greeter) -> None:
    with tab(browser, ui.address) as window, tab(browser, ui.address) as other:
        for each in (window, other):
            each.page.goto("/jobs?q=queue:live")
        button = window.page.get_by_role("button", name="Live")
        assert button.get_attribute("aria-pressed") == "true"
        window.page.keyboard.press("l")
        assert button.get_attribute("aria-pressed") == "false"
        known = rows(window)
        greeter.work("unseen")
        wait_for_row(other, known + 1)
        assert rows(window) == known
        with window.page.expect_request(
            lambda request: "/jobs?" in request.url, timeout=25_000
        ):  # the poll comes later
            button.click()
        wait_for_row(window, known + 1)


def test_by_keyboard_alone(browser: Browser, ui: Ui) -> None:
    with tab(browser, ui.address) as window:
        page = window.page
        page.goto("/")
        page.keyboard.press("/")
        page.keyboard.type("status:err")
        page.get_by_role("option", name="status:error").wait_for()
        assert window.violations() == []
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.keyboard.type("queue:pay")
        page.get_by_role("option", name="queue:payments").wait_for()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs?q=*")
        shown = page.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.id)")
        assert shown
        link = page.url
        for key in "jjk":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/{shown[0].removeprefix('j-')}*")
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible()
        assert window.violations() == []
        page.keyboard.press("Escape")
        assert not page.get_by_role("dialog").is_visible()
        page.keyboard.press("g")
        page.keyboard.press("e")
        page.wait_for_url("**/errors*")
        # What was searched for is in the address, and the same is there when it is opened again.
        page.goto(link)
        assert page.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.id)") == shown
        assert page.get_by_label("Search jobs").input_value().split() == ["status:error", "queue:payments"]


def test_charts_tell_what_is_pointed_at_and_zoom_where_they_are_dragged_over(browser: Browser, ui: Ui) -> None:
    with tab(browser, ui.address) as window:
        page = window.page
        page.goto("/?range=6h")
        box = page.locator("#throughput .plot > svg").first.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.9, middle)
        page.locator("#tip:not([hidden])").wait_for()
        assert "jobs" in page.locator("#tip").inner_text()
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.98, middle)
        page.mouse.up()
        page.wait_for_url("**from=*")
        begin, end = (parse_qs(urlsplit(page.url).query)[name][0] for name in ("from", "to"))
        assert begin < end
        assert "range" not in page.url
        assert page.locator("details.other summary").get_attribute("aria-current") == "true"


def test_without_scripts(browser: Browser, ui: Ui) -> None:
    with tab(browser, ui.address, scripts=False) as window:
        page = window.page
        page.goto("/")
        page.get_by_role("link", name="7d", exact=True).click()
        page.wait_for_url("**range=7d*")
        page.get_by_label("Search jobs").fill("status:ok")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs?*q=status*")
        assert "range=7d" in page.url
        page.get_by_role("link", name="Older").click()
        page.wait_for_url("**before=*")
        page.goto("/errors")
        page.get_by_role("link", name="CardDeclined").first.click()
        page.get_by_role("button", name="Resolve").click()
        page.get_by_role("button", name="Open again").click()
        page.get_by_role("button", name="Resolve").wait_for()


def test_hostile_text_stays_text(browser: Browser, ui: Ui) -> None:
    with tab(browser, ui.address) as window:
        page = window.page
        for job in ui.json("/jobs", q=HOSTILE)["jobs"]:
            page.goto(f"/jobs/{job['id']}")
            for link in page.locator("main a").all():
                assert page.request.get(str(link.get_attribute("href"))).status == 200
        page.keyboard.press("/")
        page.keyboard.type("queue:<")
        page.get_by_role("option").first.wait_for()
        option: Any = page.get_by_role("option").first
        assert "<script>alert(1)" in option.inner_text()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs?*")
        page.locator("tbody tr").first.wait_for()
        assert "alert(1)" in page.locator("tbody").inner_text()
