"""Three replicas on one PostgreSQL under load: kill -9 of any of them, and a database that stops at once. What was
acknowledged is never lost, nothing is applied twice, no limit is passed, and beliefs and receipts follow from the rows.

Clients ask through a proxy that repeats nothing, or any replica themselves; what was not answered they send again, to
another replica, and some repeat what was answered.
"""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from api.ledger import audit
from api.server import free_port
from api.stores.decision_log import DecisionRecord
from api.stores.postgres.store import PostgresStore
from bandit.catalogue.loading import parse
from tests import postgres
from tests.faults.service_process import ServiceProcess
from tests.faults.webhook_receiver import receiving
from tests.postgres import PostgresServer
from tests.waiting import PATIENCE, eventually

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "linear" }
reward = { kind = "binary", window = "1h", value = 50.0 }
[stages.cart.features]
price = { type = "number", min = 0, max = 100, default = 10 }
[stages.cart.nudges.ten]
type = "discount"
format = "banner"
cost_when_rewarded = 5.0
budget = { amount = 400, per = "3650d" }
limits = { total = 3 }
[stages.cart.nudges.few]
type = "help"
format = "banner"
limits = { everyone = { most = 60, per = "3650d" } }
[stages.cart.nudges.tip]
type = "help"
format = "tooltip"
limits = { total = 5 }
"""
SCALE = 4e-4  # an hour in 1.44 s: what was decided is settled while the load goes on
MOST = {"ten": 3, "tip": 5}
USERS = 60
_PAUSE = 0.02  # seconds before a request is repeated
SALT = "5a17"
PAUSED = "tip"


class AnyReplicaClient(threading.Thread):
    """Client that asks and reports at any replica, and repeats what was not answered at another one."""

    def __init__(self, urls: list[str], seed: int, done: threading.Event):
        super().__init__(daemon=True)
        self._urls, self._done, self._chance = urls, done, random.Random(seed)
        self.arms: dict[str, str] = {}  # decision → arm that was answered
        self.rewards = set[str]()
        self.repeated = 0
        self.wrong: list[str] = ["a client has not come to its end"]

    def run(self) -> None:
        with ExitStack() as opened:
            replicas = [opened.enter_context(httpx.Client(base_url=url, timeout=PATIENCE)) for url in self._urls]
            while not self._done.is_set():
                self._round(replicas)
        del self.wrong[0]

    def _round(self, replicas: list[httpx.Client]) -> None:
        chance = self._chance
        decision = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        context = {"price": chance.uniform(0, 100)}
        ask = {"stage": "cart", "user_id": f"user {chance.randrange(USERS)}", "decision_id": decision}
        arm = self.insist(replicas, "/v1/decisions", {**ask, "context": context})["nudge"]["id"]
        self.arms[decision] = arm
        if chance.random() < 0.2:
            again = self.insist(replicas, "/v1/decisions", {**ask, "context": context})
            if again["nudge"]["id"] != arm or not again["duplicate"]:
                self.wrong.append(f"{decision} was {arm}, then {again}")
        if chance.random() < 0.5:
            for _ in range(1 + (chance.random() < 0.2)):
                self.insist(replicas, "/v1/outcomes", {"decision_id": decision, "kind": "reward"})
            self.rewards.add(decision)

    def insist(self, replicas: list[httpx.Client], path: str, body: Mapping[str, object]) -> Any:
        while True:
            try:
                reply = self._chance.choice(replicas).post(path, json=body)
            except httpx.TransportError:
                reply = None
            if reply is not None and reply.status_code == 200:
                return reply.json()
            assert reply is None or reply.status_code == 503, f"{path} answered {reply.status_code}: {reply.text}"
            self.repeated += 1
            time.sleep(_PAUSE)


class Proxy:
    """Proxy that sends each request to the next of the replicas that said they were ready when it last looked. It
    repeats nothing.
    """

    def __init__(self, urls: list[str]):
        self.urls, self._turn, self._lock, self.ready = urls, 0, threading.Lock(), list(urls)
        self._over = threading.Event()
        self._client = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = proxy.forward(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._server.serve_forever, self._look)
        ]

    def forward(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer of the next replica; 503 if it gives none."""
        with self._lock:
            self._turn += 1
            url = self.ready[self._turn % len(self.ready)]
        try:
            json = {"Content-Type": "application/json"}
            reply = self._client.post(f"{url}{path}", content=body, headers=json)
        except httpx.TransportError as error:
            return 503, str(error).encode()
        return reply.status_code, reply.content

    def leaves_out(self, url: str) -> bool:
        """Whether no request goes to a replica any more."""
        return url not in self.ready

    def _look(self) -> None:
        while not self._over.wait(0.05):
            ready = [url for url in self.urls if self._is_ready(url)]
            with self._lock:
                self.ready = ready or self.ready

    def _is_ready(self, url: str) -> bool:
        try:
            return self._client.get(f"{url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> "Proxy":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._threads[1].join(PATIENCE)
        self._client.close()


@contextmanager
def three_replicas(folder: Path, url: str, *more: str) -> Iterator[list[ServiceProcess]]:
    (folder / "app.toml").write_text(APP)
    options = ["--app", str(folder / "app.toml"), "--window-scale", str(SCALE), "--salt", SALT, *more]
    services = []
    for n in range(3):
        (folder / str(n)).mkdir()
        services.append(ServiceProcess(folder / str(n), free_port("127.0.0.1"), options, url))
    try:
        for service in services:
            service.spawn()
        for service in services:
            service.ready()
        yield services
    finally:
        for service in services:
            service.end()


def more_load(clients: list[AnyReplicaClient], count: int) -> None:
    """Return when so many more decisions were answered: moments of load, not of a clock."""
    enough = sum(len(client.arms) for client in clients) + count
    assert eventually(lambda: sum(len(client.arms) for client in clients) >= enough, 0.005)


def operate(client: AnyReplicaClient, urls: list[str], verb: str) -> None:
    """Pause or resume a nudge, as often as it takes."""
    body = {"by": "ana", "reason": f"{verb} for a while", "nudge": PAUSED}
    with httpx.Client(base_url=urls[0], timeout=PATIENCE) as one:
        client.insist([one], f"/v1/policies/cart/{verb}", body)


class Troubles(NamedTuple):
    """Load and troubles of one run, and of how many of its decisions receipts are computed again at the end."""

    clients: int
    kills: int
    stops: int
    receipts: int
    seed: int


def chaos(folder: Path, server: PostgresServer, url: str, run: Troubles) -> None:
    moments, done = random.Random(run.seed), threading.Event()
    hooks = folder / "webhooks.toml"
    with (
        receiving(hooks, ["reward"]) as receiver,
        three_replicas(folder, url, "--webhooks", str(hooks)) as services,
        Proxy([service.url for service in services]) as proxy,
    ):
        receiver.willing = True
        load = [AnyReplicaClient([proxy.url], run.seed * 1000 + i, done) for i in range(run.clients)]
        for client in load:
            client.start()
        troubles = ["kill"] * run.kills + ["stop"] * run.stops
        moments.shuffle(troubles)
        for n, trouble in enumerate(troubles):
            more_load(load, moments.randint(10, 60))
            operate(load[0], [proxy.url], ("pause", "resume")[n % 2])
            if trouble == "kill":
                victim = moments.choice(services)
                victim.kill()
                victim.start()
            else:
                server.stop("immediate")
                server.start()
        more_load(load, 60)
        done.set()
        for client in load:
            client.join(PATIENCE)
        assert [said for client in load for said in client.wrong] == []
        assert sum(client.repeated for client in load) > 0, "no request was ever interrupted"
        policies = httpx.get(f"{services[0].url}/v1/policies", params={"wait": True}, timeout=PATIENCE)
        assert policies.status_code == 200, policies.text
        recompute_anywhere(services, load, run, moments)
        rewards = {decision for client in load for decision in client.rewards}
        assert eventually(lambda: rewards <= set(receiver.taken)), "a reward was not told"
        assert [service.stop() for service in services] == [0, 0, 0], services[0].log.read_text()
    check(url, load, random.Random(run.seed))


def recompute_anywhere(
    services: list[ServiceProcess], load: list[AnyReplicaClient], run: Troubles, chance: random.Random
) -> None:
    """Receipts of decisions that any replica made are recomputed by any."""
    made = sorted(decision for client in load for decision in client.arms)
    for i, decision in enumerate(chance.sample(made, run.receipts)):
        path = f"/v1/decisions/{decision}/recomputation"
        said = httpx.get(f"{services[i % 3].url}{path}", timeout=PATIENCE).json()
        assert said["verdict"] == "equal", said


def check(url: str, load: list[AnyReplicaClient], chance: random.Random) -> None:
    """Lost 0, twice 0, limits passed 0; beliefs and receipts as the rows say."""
    arms = {decision: arm for client in load for decision, arm in client.arms.items()}
    with closing(PostgresStore(url)) as store:
        made = list(store.decisions())
        kept = {str(one.decision.id): one for one in made}
        assert {decision: kept[decision].decision.arm for decision in arms} == arms
        rewards = {decision for client in load for decision in client.rewards}
        assert [d for d in rewards if [o.kind for o in kept[d].outcomes] != ["reward"]] == []
        assert [one.seq for one in made] == list(range(1, len(made) + 1))
        assert sum(one.settlement is not None for one in made) > 50
        shown = Counter((one.decision.user, one.decision.arm) for one in made)
        assert {arm: most for (_, arm), n in shown.items() for most in [MOST.get(arm, n)] if n > most} == {}
        assert sum(n for (_, arm), n in shown.items() if arm == "few") <= 60
        assert spent(made) <= 400.0
        assert shown_while_paused(url, made) == []
        assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
        salt = audit.claim(store, parse(APP), SALT)
        assert [one.seq for one in chance.sample(made, 40) if audit.differences(store, one, salt)] == []
        assert list(store.damages()) == []


def shown_while_paused(url: str, made: list[DecisionRecord]) -> list[int]:
    """Numbers of decisions that show a nudge, and were committed while it was paused. The digests of commits say how
    far each table went.
    """
    wrong, paused, before = list[int](), False, (0, 0)
    with psycopg.connect(url) as conn:
        verbs = [verb for (verb,) in conn.execute("SELECT verb FROM operator_actions ORDER BY seq")]
        for decisions, actions in conn.execute("SELECT decisions, operator_actions FROM commits ORDER BY seq"):
            if paused:
                arms = ((one.seq, one.decision.arm) for one in made[before[0] : decisions])
                wrong += [seq for seq, arm in arms if arm == PAUSED]
            if actions > before[1]:
                paused = verbs[actions - 1] == "pause"
            before = decisions, actions
    return wrong


def spent(made: list[DecisionRecord]) -> float:
    """What the discount cost, with all that is open as if it were rewarded."""
    mine = [one for one in made if one.decision.arm == "ten"]
    return sum(5.0 if one.settlement is None or one.settlement.reward else 0.0 for one in mine)


def test_replicas_are_restarted_one_by_one_and_no_request_fails(database: PostgresServer, tmp_path: Path) -> None:
    done = threading.Event()
    with (
        database.schema() as url,
        three_replicas(tmp_path, url, "--drain", "600") as services,
        Proxy([service.url for service in services]) as proxy,
    ):
        load = [AnyReplicaClient([proxy.url], i, done) for i in range(6)]
        for client in load:
            client.start()
        for service in services:
            more_load(load, 30)
            assert service.process is not None
            service.process.terminate()
            assert eventually(partial(proxy.leaves_out, service.url))
            more_load(load, 30)  # what was sent to it before is answered
            assert service.stop() == 0, service.log.read_text()  # a second signal ends its drain
            service.start()
            assert eventually(lambda: proxy.ready == proxy.urls)
        done.set()
        for client in load:
            client.join(PATIENCE)
        assert [said for client in load for said in client.wrong] == []
        assert sum(len(client.arms) for client in load) > 180
        assert sum(client.repeated for client in load) == 0
        for service in services:
            service.end()
        check(url, load, random.Random(1))


def test_a_failover_to_a_standby_loses_nothing(database: PostgresServer, tmp_path: Path) -> None:
    """The standby has applied what was acknowledged (`synchronous_commit = remote_apply`)."""
    done = threading.Event()
    with database.schema() as url, database.standby() as standby:
        both = url.replace(f"host={database.folder}", f"host={database.folder},{standby.folder}")
        with three_replicas(tmp_path, f"{both}&target_session_attrs=read-write") as services:
            load = [AnyReplicaClient([s.url for s in services], i, done) for i in range(6)]
            for client in load:
                client.start()
            more_load(load, 120)
            database.stop("immediate")
            standby.promote()
            more_load(load, 120)
            done.set()
            for client in load:
                client.join(PATIENCE)
            assert [said for client in load for said in client.wrong] == []
            assert sum(client.repeated for client in load) > 0
            assert [service.stop() for service in services] == [0, 0, 0], services[0].log.read_text()
        check(url.replace(str(database.folder), str(standby.folder)), load, random.Random(1))
        database.start()  # for the schema to be removed
        database.wait_for_nobody()


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    with postgres.server(durable=True) as running:
        yield running


def test_kills_and_a_stopped_database_lose_and_double_nothing(database: PostgresServer, tmp_path: Path) -> None:
    with database.schema() as url:
        chaos(tmp_path, database, url, Troubles(clients=6, kills=3, stops=1, receipts=40, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills_lose_and_double_nothing(database: PostgresServer, tmp_path: Path, seed: int) -> None:
    with database.schema() as url:
        chaos(tmp_path, database, url, Troubles(clients=128, kills=20, stops=2, receipts=200, seed=seed))
