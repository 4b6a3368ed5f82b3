"""Serves the ClickHouse inside PyPI's chdb by as much of ClickHouse's HTTP interface as autoinst uses.

    python chdb_server.py PORT FOLDER [CONFIGURATION]

It needs nothing but chdb, in whose environment it runs. One question at a time, as chdb has one session a process.
Users and passwords are not looked at: a real server's tests have those.
"""

import gzip
import re
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


class Missing(types.ModuleType):
    """Stands for what chdb imports for data frames, which are not used here."""

    def __getattr__(self, name):
        return type(name, (), {})


for library in ("numpy", "pandas", "pyarrow"):
    sys.modules[library] = Missing(library)
from chdb import session  # noqa: E402

LOCK = threading.Lock()
NOT_SETTINGS = {"query", "database", "wait_end_of_query"}
CODE = re.compile(r"Code: (\d+)")


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, b"Ok.\n")

    def do_POST(self):
        parameters = dict(parse_qsl(urlsplit(self.path).query))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        text = body.decode("utf-8", "surrogateescape")
        settings = ", ".join(f"{k} = '{v}'" for k, v in parameters.items() if k not in NOT_SETTINGS)
        clause = f" SETTINGS {settings}" if settings else ""
        if "query" in parameters:
            head, _, form = parameters["query"].partition(" FORMAT ")
            text = f"{head}{clause} FORMAT {form}\n{text}"
        elif clause and "\nFORMAT " in text:
            head, _, form = text.rpartition("\nFORMAT ")
            text = f"{head}{clause}\nFORMAT {form}"
        try:
            with LOCK:
                SESSION.query(f"USE `{parameters.get('database', 'default')}`")
                found = SESSION.query(text, "JSONEachRow").bytes()
        except Exception as error:
            words = str(error)
            number = CODE.search(words)
            status = 404 if number and number[1] in {"60", "81"} else 500
            self.answer(status, words.encode("utf-8", "replace"))
            return
        self.answer(200, found or b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        """Say nothing."""


if __name__ == "__main__":
    SESSION = session.Session("?config-file=".join(sys.argv[2:]))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.serve_forever(0.02)
