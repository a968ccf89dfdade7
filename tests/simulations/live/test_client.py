"""The one HTTP client: the simulations' tries again where that is safe, the operators' says at once what is wrong."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bandit.errors import RemoteError
from journey_bandit.service.service_client import AdminClient
from simulations.live.client import ServiceClient

STAGES = {"app": "shop", "stages": [{"stage": "cart"}]}
BUSY = {"title": "unavailable", "detail": "the ledger's queue is full"}


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these, and the paths it was asked for."""
    asked, left = list[str](), list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            user = self.headers.get("authorization", "").removeprefix("Basic ")
            asked.append(f"{self.path} as {user}" if user else self.path)
            status = left.pop(0)
            body = json.dumps(STAGES if status == 200 else BUSY).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if status == 200 else "application/problem+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_busy_service_is_asked_again() -> None:
    with answering(503, 200) as (url, asked), ServiceClient(url) as client:
        assert client.stage("cart") == ("shop", {"stage": "cart"})
        assert len(asked) == 2


def test_a_refusal_is_told_at_once_in_the_services_words() -> None:
    with answering(404) as (url, asked), ServiceClient(url) as client:
        with pytest.raises(RemoteError, match=r"GET http://127.0.0.1:\d+/v1/stages: 404 the ledger's queue is full"):
            client.stage("cart")
        assert len(asked) == 1


def test_operators_are_told_at_once() -> None:
    with answering(503, 200) as (url, asked), AdminClient(url) as client:
        with pytest.raises(RemoteError, match="503 the ledger's queue is full"):
            client.stages()
        assert len(asked) == 1
        assert client.stages() == ("shop", ["cart"])


def test_nobody_there_is_said_with_the_address() -> None:
    with answering() as (url, _):
        pass
    with AdminClient(url) as client, pytest.raises(RemoteError, match=f"{url} does not answer: ConnectError"):
        client.stages()


def test_a_password_in_the_address_is_sent_and_is_in_no_message_or_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    with answering(404, 200) as (url, asked), ServiceClient(url.replace("//", "//ana:s3c%40ret@")) as client:
        with pytest.raises(RemoteError) as refused:
            client.stage("cart")
        assert client.stage("cart") == ("shop", {"stage": "cart"})
        assert client.url == url
    assert asked == [f"/v1/stages as {base64.b64encode(b'ana:s3c@ret').decode()}"] * 2
    assert "HTTP Request: GET" in caplog.text
    assert not any(secret in caplog.text + str(refused.value) for secret in ("s3c", "ana"))


@pytest.mark.parametrize("user", ["ana:s3cret@", "s3cret@"])
def test_a_password_is_in_no_message_where_nobody_answers(user: str) -> None:
    with AdminClient(f"http://{user}127.0.0.1:1") as client:
        for ask in (client.stages, client.health):
            with pytest.raises(RemoteError, match=r"^http://127\.0\.0\.1:1 does not answer"):
                ask()
