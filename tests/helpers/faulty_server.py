"""A web server on this machine that sends files, and that fails in every way a server can."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread


class FaultyServer:
    """Serves ``/FAULT/NAME``: a file of a folder, with one of the faults below or ``whole``.

    Attributes:
        asked: How often each path was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.ended = folder, Counter(), Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                fault, _, name = self.path[1:].partition('/')
                try:
                    getattr(outer, fault)(self, (outer.folder / name).read_bytes())
                except OSError:  # the other side has gone
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_address[1]
        self.address = f'http://127.0.0.1:{self.port}'

    @staticmethod
    def _begin(handler: BaseHTTPRequestHandler, length: int | None) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header('Content-Length', str(length))
        handler.end_headers()

    def whole(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self._begin(handler, len(data))
        handler.wfile.write(data)

    def no_length(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self._begin(handler, None)
        handler.wfile.write(data)

    def gone(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.send_error(404)

    def overloaded(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.send_error(503)

    def cut(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self._begin(handler, len(data))
        handler.wfile.write(data[: len(data) // 2])

    def too_long(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        """The length is that of half of the file."""
        self._begin(handler, len(data) // 2)
        handler.wfile.write(data)

    def silent(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self.ended.wait(60)

    def stalls(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self._begin(handler, len(data))
        handler.wfile.write(data[: len(data) // 2])
        self.ended.wait(60)

    def drips(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self._begin(handler, len(data))
        for byte in data:
            handler.wfile.write(bytes([byte]))
            if self.ended.wait(0.02):
                break

    def slow(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        """Slow and sound."""
        self._begin(handler, len(data))
        for part in range(5):
            handler.wfile.write(data[len(data) * part // 5 : len(data) * (part + 1) // 5])
            time.sleep(0.05)

    def page(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self.whole(handler, b'<!doctype html><html>Please log in</html>')


@contextmanager
def faulty_server(folder: Path) -> Iterator[FaultyServer]:
    """Serve a folder for a block."""
    faulty = FaultyServer(folder)
    thread = Thread(target=faulty.server.serve_forever, kwargs=dict(poll_interval=0.02))
    thread.start()
    try:
        yield faulty
    finally:
        faulty.ended.set()
        faulty.server.shutdown()
        faulty.server.server_close()
        thread.join()
