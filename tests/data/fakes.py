"""Servers for what has none in Debian or on PyPI, each on a free loopback port: prints their ports as JSON, and serves.

They speak just enough: MongoDB's wire protocol, the HTTP of Elasticsearch, AWS and a web site, and SMTP.
"""

import http.server
import json
import socketserver
import struct
import sys
import threading

import bson


class Web(http.server.BaseHTTPRequestHandler):
    """Answers anything with JSON that Elasticsearch's client and botocore take; `/from` leads to `/to`."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        moved = self.path.startswith("/from")
        body = json.dumps({"hits": {"hits": []}, "QueueUrls": [], "count": 0}).encode()
        if asked.startswith(b"Action=ListQueues"):  # of a botocore that speaks XML yet
            body = b"<a><ListQueuesResult><QueueUrl>mail</QueueUrl></ListQueuesResult></a>"
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/to?word=secret")
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


class Mongo(socketserver.BaseRequestHandler):
    """Answers OP_MSG and the first OP_QUERY as a stand-alone server of recent version."""

    HELLO = {
        "ok": 1.0,
        "ismaster": True,
        "isWritablePrimary": True,
        "helloOk": True,
        "minWireVersion": 0,
        "maxWireVersion": 21,
        "maxBsonObjectSize": 1 << 24,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": 1,
    }

    def take(self, size):
        data = b""
        while len(data) < size:
            more = self.request.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def handle(self):
        try:
            while True:
                size, number, _, operation = struct.unpack("<iiii", self.take(16))
                body = self.take(size - 16)
                if operation == 2013:
                    flags, command = struct.unpack("<I", body[:4])[0], self.document(body[5:])
                    if flags & 2:  # no answer is wanted
                        continue
                    found = bson.encode(self.reply(command))
                    self.send(number, 2013, struct.pack("<IB", 0, 0) + found)
                else:
                    self.send(number, 1, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self.HELLO))
        except (EOFError, OSError):
            pass

    @staticmethod
    def document(data):
        return bson.decode(data[: struct.unpack("<i", data[:4])[0]])

    def send(self, number, operation, body):
        self.request.sendall(struct.pack("<iiii", 16 + len(body), 1, number, operation) + body)

    def reply(self, command):
        name = next(iter(command))
        if name in ("hello", "ismaster", "isMaster"):
            return self.HELLO
        if name in ("find", "aggregate"):
            where = f"{command['$db']}.{command[name]}"
            return {"ok": 1.0, "cursor": {"id": 0, "ns": where, "firstBatch": [{"_id": 1, "n": 1}]}}
        return {"ok": 1.0, "n": 1, "nModified": 1}


class Mail(socketserver.StreamRequestHandler):
    """Takes every mail."""

    def handle(self):
        self.wfile.write(b"220 fake\r\n")
        for line in self.rfile:
            word = line[:4].upper().strip()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


def serve(server):
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Server(socketserver.ThreadingTCPServer):
    """Any of the two."""

    allow_reuse_address = True


place = ("127.0.0.1", 0)
ports = {
    "web": serve(http.server.ThreadingHTTPServer(place, Web)),
    "mongo": serve(Server(place, Mongo)),
    "mail": serve(Server(place, Mail)),
}
print(json.dumps(ports), flush=True)
sys.stdin.read()  # until the test closes it
