"""kill -9 while webhooks are being delivered: every decision that was acknowledged is told, and the signature holds."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import standardwebhooks

from api.server import free_port
from api.webhooks.config import KINDS, create
from journey_bandit import processes
from tests.waiting import eventually

HOST = "127.0.0.1"


class Receiver:
    """Takes nothing until `willing`, then only what is signed."""

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


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    port = free_port(HOST)
    secret = create(tmp_path / "webhooks.toml", "crm", f"http://{HOST}:{port}/hooks", [*KINDS])
    made = Receiver(port, secret)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_every_acknowledged_decision_is_told_whenever_the_service_dies(tmp_path: Path, receiver: Receiver) -> None:
    port, log = free_port(HOST), tmp_path / "serve.log"
    where = ("--app", "travel", "--store", f"sqlite:///{tmp_path / 'l.db'}", "--port", str(port), "--dev")
    acknowledged: list[str] = []
    for willing in (False, False, True):
        receiver.willing = willing
        enough = receiver.asked + 5
        server = processes.serve(*where, "--webhooks", str(tmp_path / "webhooks.toml"), log=log)
        with processes.stopping(server), httpx.Client(base_url=f"http://{HOST}:{port}") as client:
            processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
            for n in range(15):
                body = {"stage": "cart", "user_id": f"u{len(acknowledged)}-{n}"}
                acknowledged.append(client.post("/v1/decisions", json=body).raise_for_status().json()["decision_id"])
            if willing:
                assert eventually(lambda: set(receiver.taken) >= set(acknowledged))
            else:
                assert eventually(partial(receiver.was_asked, enough))
                server.kill()
                server.wait()
    assert set(receiver.taken) == set(acknowledged)
