"""Logs: one form for every line, and nothing in them of what people sent."""

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from api.http.keys import create
from api.server import free_port
from api.telemetry import logs
from api.telemetry.logs import JsonLines, TextLines
from api.telemetry.request_context import CURRENT, RequestContext
from journey_bandit import processes

Serving = Callable[..., AbstractContextManager[TestClient[Litestar]]]
MARK = "alice.q7"
PERSONAL = (
    f"{MARK}@example.com",
    f"{MARK}\n2026-01-01T00:00:00Z ERROR journey_bandit.worker write fails",
    f'{MARK}"}}\r\n{{"level":"error","event":"forged"}}',
    f"{MARK}\x1b[31m %s %d {{}} ${{jndi:ldap://x}}",
    f"{MARK}\u2028\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
)


def record(event: str, *given: object, **more: Any) -> logging.LogRecord:
    return logging.getLogger("journey_bandit.test").makeRecord(
        "journey_bandit.test", logging.WARNING, __file__, 1, event, given, more.pop("exc_info", None), **more
    )


def test_a_json_line_says_when_what_and_of_which_request() -> None:
    made = record("closed %d connections: %s", 3, "a\nb \u2028", extra={logs.FIELDS: {"ms": 1.5}})
    made.created = 1_700_000_000.25
    before = CURRENT.set(RequestContext([(b"x-request-id", b"r-1")]))
    try:
        line = JsonLines().format(made)
    finally:
        CURRENT.reset(before)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "journey_bandit.test",
        "event": "closed 3 connections: a\nb \u2028",
        "request_id": "r-1",
        "ms": 1.5,
    }
    assert "request_id" not in json.loads(JsonLines().format(made))


def test_a_traceback_is_one_json_line_and_indented_text() -> None:
    try:
        raise ValueError("x\nERROR forged")
    except ValueError:
        made = record("it fails", exc_info=sys.exc_info())
    line = JsonLines().format(made)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: x\nERROR forged")
    first, *rest = TextLines().format(made).split("\n")
    assert first.endswith("WARNING journey_bandit.test it fails")
    assert all(part.startswith("  ") for part in rest)


def test_text_escapes_what_could_begin_a_line() -> None:
    text = TextLines().format(record("%s", "a\nb\r\x1b[31m\x85\u2028c é"))
    assert text.endswith(r" a\nb\r\x1b[31m\x85\u2028c é")


@contextmanager
def captured() -> Iterator[dict[str, io.StringIO]]:
    """What this process logs, in each form; without the lines of the client that a test asks with."""
    outs = {"json": io.StringIO(), "text": io.StringIO()}
    handlers = [logging.StreamHandler(outs[form]) for form in outs]
    before = logging.root.level
    for handler, form in zip(handlers, (JsonLines(), TextLines()), strict=True):
        handler.setFormatter(form)
        handler.addFilter(lambda record: record.name != "httpx")
        logging.root.addHandler(handler)
    logging.root.setLevel("INFO")
    try:
        yield outs
    finally:
        for handler in handlers:
            logging.root.removeHandler(handler)
        logging.root.setLevel(before)


def every_request(client: TestClient[Litestar], personal: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests of every route with a personal value in each place: path, query, headers, body."""
    quoted = httpx.QueryParams({"x": personal})["x"].encode().hex()
    escaped = "".join(f"%{quoted[i : i + 2]}" for i in range(0, len(quoted), 2))
    header = {"user-agent": MARK, "x-request-id": f"{MARK}@example.com", "referer": f"https://x/{MARK}"}
    header |= {"x-forwarded-for": MARK, "cookie": f"a={MARK}", "traceparent": MARK, "accept-language": MARK}
    bodies: list[dict[str, Any]] = [
        {"stage": "signup", "user_id": personal},
        {"stage": personal, "user_id": personal, "context": {personal: personal}},
        {"decision_id": personal, "kind": personal, "value": personal},
        {"events": [{"event": "Opened", "event_id": personal, "user_id": personal, "properties": {personal: 1}}, {}]},
        {"event": personal, "userId": personal, "messageId": personal, "traits": {"email": personal}},
    ]
    for route in client.app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        path = re.sub(r"\{[^}]+\}", escaped, route.path_format)
        for method in sorted(route.methods):
            for body in bodies if method not in {"GET", "HEAD", "OPTIONS"} else ({},):
                content = json.dumps(body).encode()
                yield method, path, {"headers": header, "params": {"q": personal, personal: "1"}, "content": content}
            yield method, path, {"headers": header | {"x-api-key": personal.encode()}, "content": personal.encode()}


@pytest.mark.parametrize("keys", [False, True], ids=["dev", "keys"])
def test_nothing_that_people_send_to_any_route_is_logged(serving: Serving, tmp_path: Path, keys: bool) -> None:
    settings: dict[str, Any] = {}
    if keys:
        create(tmp_path / "keys.toml", "backend", ["decide"])
        settings = {"keys": str(tmp_path / "keys.toml"), "trusted_proxies": "127.0.0.1"}
    statuses = set[int]()
    with captured() as outs, serving(access_log=True, **settings) as client:
        asked = [one for personal in PERSONAL for one in every_request(client, personal)]
        if keys:  # keys that are none are answered slowly
            asked = asked[:: len(asked) // 40]
        for method, path, given in asked:
            statuses.add(client.request(method, path, follow_redirects=False, **given).status_code)
        client.get(f"/{MARK}")
        client.request(MARK.upper().replace(".", ""), "/v1/stages")
    assert len(asked) >= 40
    assert statuses >= ({401} if keys else {200, 400, 404})
    for out in outs.values():
        said = out.getvalue().lower()
        assert said.count("journey_bandit.access") == len(asked) + 2
        assert [line for line in said.splitlines() if MARK in line or MARK.replace(".", "") in line] == []
        assert "forged" not in said
    for line in outs["json"].getvalue().splitlines():
        assert json.loads(line).keys() >= {"time", "level", "logger", "event", "request_id"}, line


def test_the_access_log_has_routes_not_paths_and_is_off_unless_asked_for(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def told() -> list[dict[str, Any]]:
        return [getattr(one, logs.FIELDS) for one in caplog.records if one.name == "journey_bandit.access"]

    with serving() as client:
        client.get("/health/live")
        assert told() == []
    with serving(access_log=True) as client:
        client.post("/v1/decisions", json={"stage": "signup", "user_id": "u"})
        client.post("/v1/decisions", json={"stage": "no", "user_id": "u"})
        client.get("/v1/users/someone/journey")
        client.head("/health/ready")
        client.get("/nowhere")
    found = [(one["method"], one["route"], one["status"]) for one in told()]
    assert found == [
        ("POST", "/v1/decisions", 200),
        ("POST", "/v1/decisions", 404),
        ("GET", "/v1/users/{user_id}/journey", 200),
        ("HEAD", "/health/ready", 200),
        ("GET", "(refused)", 404),
    ]
    assert all(0 < one["ms"] < 60_000 for one in told())


def test_lines_before_the_form_is_known_are_logged_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.held():
        logging.getLogger("journey_bandit.settings").warning("early")
        logs.configure("json", "warning")
    logging.getLogger("journey_bandit.settings").info("below the level")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["logger"], one["level"]) for one in lines] == [
        ("journey_bandit.settings", "warning"),
        ("py.warnings", "warning"),
        ("journey_bandit.server", "error"),
    ]
    assert "DeprecationWarning: old" in lines[1]["event"]
    assert lines[2]["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_service_that_logs_json_says_nothing_else(tmp_path: Path, catalogue_file: Path) -> None:
    log, port = tmp_path / "serve.log", free_port("127.0.0.1")
    where = ("--app", str(catalogue_file), "--store", "memory://", "--port", str(port), "--dev", "--salt", "s")
    url = f"http://127.0.0.1:{port}"
    with processes.stopping(server := processes.serve(*where, "--log-format", "json", "--access-log", log=log)):
        processes.wait(server, f"{url}/health/ready", log)
        headers = {"x-request-id": "from-outside"}
        httpx.post(f"{url}/v1/decisions", json={"stage": "signup", "user_id": "u"}, headers=headers).raise_for_status()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["event"].startswith("journey-bandit serves ")
    assert lines[-1]["event"] == "stopped; everything acknowledged is in the ledger"
    (asked,) = [one for one in lines if one.get("request_id") == "from-outside"]
    assert (asked["method"], asked["route"], asked["status"]) == ("POST", "/v1/decisions", 200)
