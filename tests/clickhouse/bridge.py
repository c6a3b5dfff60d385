"""ClickHouse's engine behind as much of ClickHouse's HTTP interface as its clients need.

    python bridge.py FOLDER PORT [USER PASSWORD]

Listens on 127.0.0.1 (PORT 0: on a free one), says `listening on PORT` when it is up, and keeps its data in FOLDER: whoever starts
it again there finds what was written, after SIGKILL too. One query runs at a time. A request that breaks off does nothing,
and neither does one whose body is longer than MAX_BODY_BYTES.
"""

import hmac
import os
import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb import _chdb

MAX_BODY_BYTES = 1 << 30

# Parameters that are no settings, as in ClickHouse's HTTPHandler.
NO_SETTINGS = {
    "buffer_size",
    "compress",
    "database",
    "decompress",
    "default_format",
    "query",
    "query_id",
    "wait_end_of_query",
}

SETTING = re.compile(r"[A-Za-z_0-9]+")
INSERT = re.compile(r"(?P<into>\s*INSERT\s+INTO\s.+?)\s+FORMAT\s+(?P<format>\w+)\s*", re.IGNORECASE | re.DOTALL)
CODE = re.compile(r"Code: (\d+)\.")


class Refused(Exception):
    """A request that is answered with an error of ClickHouse's kind."""

    def __init__(self, code, text, status=400):
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status = status


class Engine:
    """The one connection to the engine."""

    def __init__(self, folder):
        self.body = os.path.join(folder, "body")
        self.connection = _chdb.connect(os.path.join(folder, "data"))
        self.lock = threading.Lock()
        self.database, self.settings = None, {}

    def run(self, query, data, database, settings, output_format):
        """What `query` gives, with `data` as what it inserts."""
        with self.lock:
            self.use(database, settings)
            return self.insert(query, data) if data is not None else self.query(query, output_format)

    def use(self, database, settings):
        """Makes the connection's state what the request says: most requests say the same."""
        if database != self.database:
            self.database = None
            self.query(f"USE {quoted(database)}")
            self.database = database
        for name in [name for name in self.settings if name not in settings]:
            self.query(f"SET {name} = DEFAULT")
            del self.settings[name]
        for name, value in settings.items():
            if self.settings.get(name) != value:
                self.query(f"SET {name} = '{escaped(value)}'")
                self.settings[name] = value

    def insert(self, query, data):
        insert = INSERT.fullmatch(query)
        if insert is None:
            raise Refused(62, f"this is no INSERT with a format: {query}")
        with open(self.body, "wb") as body:
            body.write(data)
        return self.query(f"{insert['into']} FROM INFILE '{escaped(self.body)}' FORMAT {insert['format']}")

    def query(self, query, output_format="TabSeparated"):
        result = self.connection.query(query, output_format)
        return result.bytes() if result.size() else b""


class Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, b"Ok.\n")

    def do_POST(self):
        try:
            body = self.read_body()
        except (EOFError, ValueError, OSError):
            self.close_connection = True
            return
        try:
            answer = self.run(body)
        except Refused as refused:
            self.fail(refused.status, str(refused))
        except Exception as error:  # The engine's, of a kind of its own.
            self.fail(500, str(error))
        else:
            self.answer(200, answer)

    def run(self, body):
        self.check_login()
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        settings = {name: value for name, value in parameters.items() if name not in NO_SETTINGS}
        strange = [name for name in settings if not SETTING.fullmatch(name)]
        if strange:
            raise Refused(115, f"Unknown setting '{strange[0]}'. (UNKNOWN_SETTING)", 404)
        query, data = parameters.get("query"), body
        if query is None:
            query, data = body.decode(), None
        database = parameters.get("database", "default")
        output_format = parameters.get("default_format", "TabSeparated")
        return self.server.engine.run(query, data, database, settings, output_format)

    def check_login(self):
        given = (self.headers.get("X-ClickHouse-User", "default"), self.headers.get("X-ClickHouse-Key", ""))
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, self.server.login)):
            raise Refused(516, f"{given[0]}: Authentication failed. (AUTHENTICATION_FAILED)", 403)

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.read(int(self.headers.get("Content-Length", 0)))
        chunks, total = [], 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            total += size
            chunks.append(self.read(size))
            self.read(2)
            if total > MAX_BODY_BYTES:
                raise ValueError("the body is too long")
        while (line := self.rfile.readline()) != b"\r\n":
            if not line:
                raise EOFError
        return b"".join(chunks)

    def read(self, size):
        if size > MAX_BODY_BYTES:
            raise ValueError("the body is too long")
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def fail(self, status, text):
        code = CODE.search(text)
        self.answer(status, text.encode(), [("X-ClickHouse-Exception-Code", code[1])] if code else [])

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def log_request(self, code="-", size="-"):
        """Tells nothing: queries are many, and names of tenants stand in them."""


class Server(ThreadingHTTPServer):
    """Serves each connection on a thread of its own."""

    daemon_threads = True
    request_queue_size = 128


def escaped(text):
    return text.replace("\\", "\\\\").replace("'", "\\'")


def quoted(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def main(folder, port="0", user="default", password=""):
    os.makedirs(folder, exist_ok=True)
    engine = Engine(os.path.abspath(folder))
    with Server(("127.0.0.1", int(port)), Handler) as server:
        server.engine, server.login = engine, (user, password)
        print(f"listening on {server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
