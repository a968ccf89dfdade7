"""Receiver of webhooks in a thread of the test."""

import http.server
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import standardwebhooks

from api.server import free_port
from api.webhooks.config import Kind, create

HOST = "127.0.0.1"


class Receiver:
    """Receiver that takes nothing until `willing`, then only what is signed. `taken`: ids of the decisions that it was
    told of.
    """

    def __init__(self, port: int, secret: str):
        self.willing = False
        self.taken: list[str] = []
        self.asked = 0
        verifier, receiver = standardwebhooks.Webhook(secret), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.asked += 1
                if receiver.willing:
                    event = verifier.verify(body, dict(self.headers))
                    receiver.taken.append(event["data"]["decision_id"])
                self.send_response(204 if receiver.willing else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer((HOST, port), Handler)

    def was_asked(self, times: int) -> bool:
        return self.asked >= times


@contextmanager
def receiving(file: Path, kinds: Sequence[Kind]) -> Iterator[Receiver]:
    """Receiver of messages of these kinds, written into a file of webhooks as the endpoint `crm`."""
    port = free_port(HOST)
    made = Receiver(port, create(file, "crm", f"http://{HOST}:{port}/hooks", [*kinds]))
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
