"""kill -9 while webhooks are being delivered: every decision that was acknowledged is told, and the signature holds."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from api.server import free_port
from api.webhooks.config import KINDS
from journey_bandit import processes
from tests.faults.webhook_receiver import HOST, Receiver, receiving
from tests.waiting import eventually


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "webhooks.toml", KINDS) as made:
        yield made


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
