"""Who approves: a name is proven only by a server that takes the user and refuses anybody else."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bandit.errors import InvalidRequest
from experiments.mlflow.approver import approver

GOOD = "Basic " + base64.b64encode(b"ana:secret").decode()


class Users(BaseHTTPRequestHandler):
    """`GET /api/2.0/mlflow/users/get` as MLflow's basic-auth app answers it; `open`: to anybody."""

    open = False

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == GOOD
        self.send_response(200 if known or self.open else 401)
        self.end_headers()
        if known or self.open:
            self.wfile.write(json.dumps({"user": {"id": 2, "username": "ana", "is_admin": False}}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        pass


@pytest.fixture
def users() -> Iterator[Callable[[bool], str]]:
    """users(open): the URL of a server."""
    servers: list[ThreadingHTTPServer] = []

    def start(anybody: bool) -> str:
        handler = type("Handler", (Users,), {"open": anybody})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("password", "anybody", "name", "proven"),
    [
        ("secret", False, "ana", "MLflow user ana"),
        ("secret", False, "ben", "MLflow user ana, for ben"),
        ("wrong", False, "ana", "ana"),
        ("secret", True, "ana", "ana"),
        ("", False, "ana", "ana"),
    ],
)
def test_a_name_is_proven_by_a_server_that_refuses_anybody_else(
    users: Callable[[bool], str],
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    anybody: bool,
    name: str,
    proven: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert approver(users(anybody), name) == proven


def test_a_silent_server_proves_nothing_and_nobody_calls_himself_proven(
    users: Callable[[bool], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert approver("http://127.0.0.1:9", "ana") == "ana"
    for name in ("key ops", "MLflow user ana"):
        with pytest.raises(InvalidRequest, match="the person's name alone"):
            approver(users(False), name)
