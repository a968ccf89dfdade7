"""What HTTP asks of any route of a real server: an answer that is read, one Host, HEAD, no noise about who leaves."""

import gzip
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import requests

from api.server import free_port
from journey_bandit import processes
from tests.waiting import PATIENCE

HOST = "127.0.0.1"
LOOP = """
app = "shop"
currency = "EUR"
[stages.cart]
features = {}
reward = { kind = "binary", window = "1h" }
[stages.cart.nudges.tip]
type = "help"
format = "banner"
[stages.offers]
policy = { name = "shared", columns = 32 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
"""
PATHS = {  # a path of each protocol → what an error of it has
    "/v1/decisions": "errors",
    "/v1/decisions/batch": "errors",
    "/v1/outcomes": "errors",
    "/v1/outcomes/batch": "errors",
    "/v1/events": "errors",
    "/v1/batch": "success",
    "/v1/track": "success",
    "/v1/data/collector": "errors",
    "/ofrep/v1/evaluate/flags": "errorCode",
    "/ofrep/v1/evaluate/flags/cart": "errorCode",
    "/offers/personalizer/v1.0/rank": "error",
    "/offers/personalizer/v1.0/events/e/reward": "error",
    "/v1/registry": "errors",
}
UNREAD = {"/nothing/here": 404, "/health/live": 405, "/v1/webhooks/dead-letters/retry": 200}


class Server:
    def __init__(self, port: int, log: Path):
        self.port, self.url, self.log = port, f"http://{HOST}:{port}", log

    def raw(self, request: bytes, *, stay: bool = True) -> bytes:
        """What comes back to these bytes until the connection ends; with `stay` False it is left at once."""
        with socket.create_connection((HOST, self.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            said = b""
            while stay and (part := connection.recv(65536)):
                said += part
            return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("wire"), free_port(HOST)
    (folder / "shop.toml").write_text(LOOP, encoding="utf-8")
    where = ("--app", str(folder / "shop.toml"), "--store", "memory://", "--port", str(port), "--dev")
    with processes.stopping(process := processes.serve(*where, log=folder / "log")):
        processes.wait(process, f"http://{HOST}:{port}/health/ready", folder / "log")
        yield Server(port, folder / "log")


def by_urllib(url: str, body: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=PATIENCE) as reply:  # noqa: S310
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def by_requests(url: str, body: bytes) -> tuple[int, bytes]:
    reply = requests.post(url, data=body, timeout=PATIENCE)
    return reply.status_code, reply.content


def by_httpx(url: str, body: bytes) -> tuple[int, bytes]:
    reply = httpx.post(url, content=body, timeout=PATIENCE)
    return reply.status_code, reply.content


@pytest.mark.parametrize("client", [by_urllib, by_requests, by_httpx])
@pytest.mark.parametrize("size", [5_000_000, 50_000_000])
def test_a_body_that_is_too_large_is_answered_as_its_protocol_answers(
    server: Server, client: Callable[[str, bytes], tuple[int, bytes]], size: int
) -> None:
    """Such clients read nothing before they have sent everything: they must be let finish."""
    for path, word in PATHS.items():
        status, content = client(server.url + path, b"a" * size)
        assert (path, status) == (path, 413)
        assert word in json.loads(content)
    for path, expected in UNREAD.items():
        assert client(server.url + path, b"a" * size)[0] == expected, path


def test_a_body_without_end_is_cut_off_at_a_bound(server: Server) -> None:
    """80 MB on one connection: no more than a bound is read, then the connection ends."""
    with socket.create_connection((HOST, server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        sent, said = 0, b""
        try:
            while sent < 400_000_000:
                sent += connection.send(b"a" * 1_000_000)
            said = connection.recv(65536)
        except OSError:
            said = said or b"reset"
    assert sent < 200_000_000
    assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_a_client_that_waits_to_be_asked_for_its_body_is_refused_without_it(server: Server) -> None:
    said = server.raw(
        b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n"
    )
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: a\r\n", b"Host: a b\r\n", b"Host: a/b\r\n", b"Host:\r\n"])
def test_a_request_needs_one_host(server: Server, hosts: bytes) -> None:
    for path, word in PATHS.items():
        request = f"POST {path} HTTP/1.1\r\n".encode() + hosts + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        head, _, body = server.raw(request).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), (path, head)
        assert word in json.loads(body)
        assert b"Host" in body
    assert server.raw(b"GET /health/live HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n").startswith(
        b"HTTP/1.1 400 "
    )


def test_an_old_client_needs_no_host(server: Server) -> None:
    assert b" 200 OK" in server.raw(b"GET /health/live HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/v1/stages", "/docs/openapi.json"])
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    get, head = httpx.get(server.url + path), httpx.head(server.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # which moves on
        assert head.headers["content-length"] == get.headers["content-length"]
    assert httpx.head(f"{server.url}/nothing").status_code == 404


@pytest.mark.parametrize("user", ["a/b", "/", "a%2Fb", "é/ü", "50%", "a?b#c", "../x", "日本", "a b+c", "x/journey"])
def test_any_user_id_is_looked_up_under_its_percent_encoded_form(server: Server, user: str) -> None:
    event = {"event_id": f"e {user}", "event": "x", "user_id": user}
    assert httpx.post(f"{server.url}/v1/events", json={"events": [event]}).json()["events"][0]["status"] == 200
    path = f"/v1/users/{quote(user, safe='')}/journey"
    said = server.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert json.loads(said.partition(b"\r\n\r\n")[2])["visits"] == 1
    assert b" 400 " in server.raw(b"GET /v1/users/%FF/journey HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[:20]


def test_a_client_that_leaves_in_its_body_or_breaks_a_chunk_is_no_error_of_ours(server: Server) -> None:
    for path in PATHS:
        post = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode()
        broken = post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nZZ\r\n"
        server.raw(post + b"Content-Length: 100\r\n\r\n{", stay=False)
        server.raw(post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", stay=False)
        server.raw(broken, stay=False)
        assert server.raw(broken)[:13] in (b"", b"HTTP/1.1 400 "), path
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'status="5' not in metrics
    assert "ERROR" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_gzip_is_taken_on_every_route_and_other_codings_are_refused(server: Server) -> None:
    body = json.dumps({"stage": "cart", "user_id": "u"}).encode()
    halves = gzip.compress(body[:9]) + gzip.compress(body[9:])
    for coding in ("gzip", "x-gzip", "GZIP"):
        reply = httpx.post(f"{server.url}/v1/decisions", content=halves, headers={"content-encoding": coding})
        assert reply.status_code == 200, reply.text
    for coding in ("br", "deflate", "gzip, gzip", "zstd"):
        for path, word in PATHS.items():
            reply = httpx.post(server.url + path, content=halves, headers={"content-encoding": coding})
            assert (path, reply.status_code, reply.json().get(word) is None) == (path, 415, False)
