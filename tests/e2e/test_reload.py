"""SIGHUP under load: keys, webhooks and the catalogue are read anew, and no request is lost."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.http.keys import create
from journey_bandit.service import key_file
from tests.waiting import PATIENCE, eventually

HOST = "127.0.0.1"
CATALOGUE = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "hierarchical", prior_mean = 0.2 }}
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
[stages.cart.features]
price = {{ type = "number", min = 0, max = 100, default = 20 }}
[stages.cart.nudges]
mail = {{ type = "reminder", format = "mail" }}
{more}
"""
PUSH = 'push = { type = "reminder", format = "push" }'
ROUNDS = 12


class Shop:
    """A service with a catalogue and keys of its own, whose process is told to read them anew."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.log = folder, folder / "serve.log"
        self.catalogue, self.keys = folder / "shop.toml", folder / "keys.toml"
        self.ledger = folder / "ledger.db"
        self.declare()
        self.key = create(self.keys, "shop", ["decide", "reward", "read"])
        command = [
            sys.executable,
            "-m",
            "journey_bandit",
            "serve",
            "--app",
            str(self.catalogue),
            "--keys",
            str(self.keys),
        ]
        command += ["--store", f"sqlite:///{self.ledger}", "--port", "0", "--window-scale", "1e-4", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        found = eventually(lambda: re.search(r" at http://127\.0\.0\.1:(\d+)\n", self.log.read_text()))
        assert found, self.log.read_text()
        self.port = int(found[1])
        self.http = self.client()

    def client(self, key: str = "") -> httpx.Client:
        headers = {"X-API-Key": key or self.key}
        return httpx.Client(base_url=f"http://{HOST}:{self.port}", timeout=PATIENCE, headers=headers)

    def answers(self) -> bool:
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def declare(self, more: str = "", old: str = "", new: str = "") -> None:
        self.catalogue.write_text(CATALOGUE.format(more=more).replace(old, new) if old else CATALOGUE.format(more=more))

    def hang_up(self, said: str) -> None:
        """SIGHUP; returns once the log says that once more."""
        before = self.log.read_text().count(said)
        self.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: self.log.read_text().count(said) > before), self.log.read_text()

    def failing(self) -> dict[str, str]:
        return dict(self.http.get("/health/ready").json()["failing"])

    def nudges(self) -> list[str]:
        (stage,) = self.http.get("/v1/policies").json()["policies"]
        return [arm["arm"] for arm in stage["arms"]]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Shop]:
    shop = Shop(folder, *options)
    try:
        with shop.http:
            assert eventually(shop.answers)
            yield shop
    finally:
        shop.process.kill()
        shop.process.wait(PATIENCE)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with serving(tmp_path) as running:
        yield running


def test_no_request_is_lost_however_often_it_reads_its_files_anew(shop: Shop) -> None:
    """Each round changes the catalogue, so that every part is built anew while four callers decide and report."""
    acknowledged, wrong = list[str](), list[Any]()
    enough = threading.Event()

    def call(number: int) -> None:
        with shop.client() as http:
            for n in range(1_000_000):
                if enough.is_set():
                    return
                try:
                    asked = {"stage": "cart", "user_id": f"{number}/{n}", "context": {"price": n % 100}}
                    reply = http.post("/v1/decisions", json=asked)
                    acknowledged.append(reply.json()["decision_id"])
                    done = http.post("/v1/outcomes", json={"decision_id": acknowledged[-1], "kind": "reward"})
                    wrong.extend(one.text for one in (reply, done) if one.status_code != 200)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a lost request
                    wrong.append(repr(error))

    callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for n in range(ROUNDS):
        due = len(acknowledged) + 20
        shop.declare(PUSH if n % 2 == 0 else "")
        shop.hang_up("serves cart")
        while len(acknowledged) < due and not wrong:
            time.sleep(0.01)
    enough.set()
    for caller in callers:
        caller.join(PATIENCE)
    assert wrong == []
    assert shop.process.poll() is None
    shop.process.terminate()
    assert shop.process.wait(PATIENCE) == 0
    assert "Traceback" not in shop.log.read_text()
    command = [
        sys.executable,
        "-m",
        "journey_bandit",
        "rebuild",
        "--verify",
        "--store",
        f"sqlite:///{shop.ledger}",
    ]
    verified = subprocess.run(
        [*command, "--receipts", "100"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert verified.returncode == 0, verified.stdout
    assert "receipts: 0 of 100 differ" in verified.stdout


def test_a_client_that_is_still_sending_keeps_nobody_waiting_and_is_answered(shop: Shop) -> None:
    body = b'{"stage": "cart", "user_id": "slow"}'
    head = f"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nX-API-Key: {shop.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    with closing(socket.create_connection((HOST, shop.port), timeout=PATIENCE)) as connection:
        connection.sendall(head.encode() + body[:10])
        shop.declare(PUSH)
        shop.hang_up("serves cart")
        assert shop.nudges() == ["none", "mail", "push"]
        connection.sendall(body[10:])
        said = connection.recv(65536)
    assert b" 200 " in said.partition(b"\r\n")[0], said
    assert b'"push"' in said, "decided by the catalogue that serves now"


def test_a_catalogue_that_cannot_be_served_leaves_the_one_that_is(shop: Shop) -> None:
    for old, new, said in (
        ("min = 0, max = 100", "min = 10, max = 100", "declare schema = 2"),
        ('app = "shop"', 'app = "bank"', "the ledger holds app 'shop'"),
        ("currency", "curency", "did you mean `currency`?"),
    ):
        shop.declare(PUSH, old, new)
        shop.hang_up("catalogue refused, the one before goes on")
        assert said in shop.failing()["reload catalogue"]
        assert said in shop.log.read_text()
        assert shop.nudges() == ["none", "mail"]
        assert shop.http.post("/v1/decisions", json={"stage": "cart", "user_id": "u"}).status_code == 200
    shop.declare(PUSH)
    shop.hang_up("serves cart")
    assert shop.failing() == {}
    assert shop.nudges() == ["none", "mail", "push"]


def test_a_revoked_key_ends_and_a_new_one_begins_with_the_signal(shop: Shop) -> None:
    def ask(http: httpx.Client) -> int:
        return http.post("/v1/decisions", json={"stage": "cart", "user_id": "u"}).status_code

    def look() -> int:
        return shop.http.get("/v1/policies").status_code

    new = create(shop.keys, "app", ["decide"])
    key_file.revoke(shop.keys, "shop")
    with shop.client(key=new) as http:
        assert (ask(http), look()) == (401, 200)
        shop.hang_up("keys: 1 are accepted now")
        assert (ask(http), look()) == (200, 401)
        shop.keys.write_text("[keys")
        shop.hang_up("keys refused, the one before goes on")
        assert "reload keys" in shop.failing()
        assert ask(http) == 200
