"""What the pages of `autoinst ui` take over a store with many jobs: from the request to the last byte, over loopback.

python -m benchmarks.web STORE [--json]      (python -m benchmarks.store --keep STORE makes one)
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from urllib.parse import quote, urlsplit

TRIES = 7
SEARCHES = {
    "newest 50": "",
    "newest 50 failures": "status:error,killed",
    "of a queue and an action": "queue:default action:Job3",
    "slower than 1 s": "duration>1s",
    "text that is nowhere": "nowhere-to-be-found",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a store's file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.store)
    if options.json:
        print(json.dumps(found))
        return
    for what, value in found.items():
        print(f"{what}: {value:,.1f}")


def measure(path: str) -> dict[str, float]:
    """Return the shortest time in ms of TRIES tries of each page over the store `path`."""
    command = [sys.executable, "-m", "autoinst.cli.main", "ui", "--port", "0", "--read-from", path]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AUTOINST_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as server:
        try:
            assert server.stdout is not None
            port = urlsplit(server.stdout.readline().split()[-1]).port
            return {f"{what}, ms": best(f"http://127.0.0.1:{port}", page) for what, page in pages(port).items()}
        finally:
            server.terminate()


def pages(port: int | None) -> dict[str, str]:
    """Return an address of each page."""
    address = f"http://127.0.0.1:{port}"
    failed = json.loads(ask(address, "/jobs.json?q=status:error"))["jobs"][0]
    errors = json.loads(ask(address, "/errors.json"))["errors"]
    found = {
        "page Overview": "/",
        "page Overview, 7 days": "/?range=7d",
        "page Actions": "/actions",
        "page Action": f"/action?name={quote(failed['action'])}",
        "page Errors": "/errors",
        "page Error": f"/errors/{errors[0]['fingerprint']}",
        "page Job": f"/jobs/{failed['id']}",
        "page Running": "/running",
        "page Queries": "/queries",
        "page Revisions": "/revisions",
    }
    return found | {f"page Jobs, {what}": f"/jobs?q={quote(text)}" for what, text in SEARCHES.items()}


def best(address: str, page: str) -> float:
    """Return the shortest time of TRIES tries in ms."""
    spent = []
    for _ in range(TRIES):
        began = time.perf_counter()
        ask(address, page)
        spent.append(time.perf_counter() - began)
    return min(spent) * 1e3


def ask(address: str, page: str) -> bytes:
    """Return a page; raises RuntimeError where it is not there."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{page}: {answer.status}")
    return body


if __name__ == "__main__":
    main()
