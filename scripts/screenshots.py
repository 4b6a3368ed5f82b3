"""Take the pictures of README and docs/ anew: `autoinst ui` over two days of the demo's shop and a run of the demo.

.venv/bin/python scripts/screenshots.py [FOLDER]      (docs/images by default)

Debian's packages fonts-inter and pngquant make them nicer and smaller.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from autoinst.config import make_private  # noqa: E402 - tests/ is no package of an installed autoinst
from autoinst.store.sqlite import Store  # noqa: E402
from tests import webdata  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.launching import AUTOINST, environment  # noqa: E402
from tests.web_pages import serving  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.web_pages import Ui

SIZE = (1240, 800)
MAX_BYTES = 150_000
THEMES = ("light", "dark")
COLOURS = "96"


def main() -> int:
    """Write the pictures; returns 1 where one is too large for a repository."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        home = Path(made) / "shop"
        fill(home)
        with serving(home) as ui, chromium() as browser:
            for name, path in pages(ui).items():
                for theme in THEMES:
                    take(browser, ui.address + path, folder / f"{name}-{theme}.png", theme)
    pictures = sorted(str(picture) for picture in folder.glob("*.png"))
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--ext", ".png", "--speed", "1", COLOURS, *pictures], check=True)
    sizes = {picture.name: picture.stat().st_size for picture in sorted(folder.glob("*.png"))}
    for name, size in sizes.items():
        print(f"{name}: {size / 1000:.0f} kB")
    return int(max(sizes.values()) > MAX_BYTES)


def fill(home: Path) -> None:
    """Make a store of two days, and run the demo into it."""
    make_private(str(home))
    now = time.time_ns()
    with Store(str(home / "store.sqlite3")) as store:
        webdata.fill(store, now, hours=48)
        webdata.retried(store, now)
    subprocess.run([AUTOINST, "demo"], env=environment(home), stdout=subprocess.DEVNULL, check=True)


def pages(ui: Ui) -> dict[str, str]:
    """Return the address of each picture."""

    def first(text: str) -> Any:
        return ui.json("/jobs", q=text)["jobs"][0]["id"]

    return {
        "overview": "/",
        "action": "/action?name=shop.payments.PaymentCapture%23perform",
        "job": f"/jobs/{first('action:jobs.PaymentCapture status:error attempts:2')}",
        "timeline": f"/jobs/{first('action:shop.mail status:ok')}",
    }


def take(browser: Browser, address: str, picture: Path, theme: Any) -> None:
    """Write a picture of the first screen of a page."""
    width, height = SIZE
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    try:
        page = context.new_page()
        page.goto(address)
        page.screenshot(path=str(picture))
    finally:
        context.close()


if __name__ == "__main__":
    sys.exit(main())
