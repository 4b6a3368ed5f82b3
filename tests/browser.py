"""Debian's Chromium driven by Playwright, and what a page did in it that it should not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, ViewportSize

Theme = Literal["light", "dark"]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESK: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 844}
DEADLINE_MS = 60_000  # for what takes a fraction of a second on an idle machine
THEMES: tuple[Theme, ...] = ("light", "dark")
ACCESSIBLE = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser with a profile of its own."""
    from playwright.sync_api import sync_playwright  # not installed for the interpreters of the matrix

    program = services.find("chromium")
    assert program is not None, "chromium is missing: scripts/services.py installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=DEADLINE_MS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a window of its own; `wrong` is all it did that it should not."""

    def __init__(self, browser: Browser, address: str, *, scripts: bool) -> None:
        self.address = address
        self.wrong: list[str] = []
        self.context: BrowserContext = browser.new_context(
            base_url=address, viewport=DESK, color_scheme="light", java_script_enabled=scripts
        )
        self.context.set_default_timeout(DEADLINE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._opened)

    def _said(self, message: ConsoleMessage) -> None:
        # That a page is not there, or a search not understood, is told by its status too.
        if message.type in ("error", "warning") and "the server responded with a status of 40" not in message.text:
            self.wrong.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.address}/", "data:")):
            self.wrong.append(f"asked for {request.url}")

    def _opened(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def violations(self) -> list[str]:
        """Return what axe finds against WCAG 2.2 A and AA in the light and in the dark theme."""
        return [found for theme in THEMES for found in self._violations(theme)]

    def _violations(self, theme: Theme) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        self.page.emulate_media(color_scheme=theme)
        options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": ACCESSIBLE}}
        found = Axe().run(self.page, options=options).response["violations"]
        return [f"{theme}: {one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]

    def overflow(self) -> int:
        """Return how many pixels wider than a phone the page is."""
        self.page.set_viewport_size(PHONE)
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        self.page.set_viewport_size(DESK)
        return int(wide) - PHONE["width"]


@contextlib.contextmanager
def tab(browser: Browser, address: str, *, scripts: bool = True) -> Iterator[Tab]:
    """Open a window; at its end nothing may have gone wrong in it."""
    opened = Tab(browser, address, scripts=scripts)
    try:
        yield opened
        assert opened.wrong == [], opened.wrong
    finally:
        opened.context.close()
