"""Reading keys, webhooks and the catalogue anew: what waits for what, what goes on, and what is said."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from api import server
from api.app import create_service
from api.clocks import Clock
from api.components import CurrentParts, SharedResources, build
from api.ledger import audit
from api.messages.decisions import DecisionReply, DecisionRequest
from api.metrics import Metrics
from api.settings import Settings
from api.stores.decision_log import DecisionRecord
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.webhooks.config import create as create_endpoint
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerMismatch
from bandit.policies import Uniform
from bandit.snapshot import from_zip
from tests.api.releases.test_releases import body
from tests.api.webhooks.test_webhooks import Receiver, senders
from tests.waiting import eventually

MORE = '[stages.basket.nudges.second]\ntype = "reminder"\nformat = "mail"\n\n[stages.instant]'
LOOP = """
[stages.offers]
policy = { name = "shared", columns = 64 }
reward = { kind = "binary", window = "10m" }
"""
DECISION = {"stage": "signup", "user_id": "u"}
SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
OUTCOME = {"decision_id": SOME_ID, "kind": "reward", "value": 1}
RELEASE = {
    "model": "m",
    "version": "",
    "approved_by": "ana",
    "approved_at": "2025-10-09T08:00:00Z",
    "reason": "back to what is learned",
}


@pytest.fixture
def more(catalogue_text: str) -> Catalogue:
    """The small catalogue with another nudge at the basket."""
    return parse(catalogue_text.replace("[stages.instant]", MORE))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Running:
    """A service, and the way to read its files anew."""

    def __init__(self, client: Any, reload: Any):
        self.client, self._reload = client, reload
        self.current: CurrentParts = reload._current

    def reload(self) -> None:
        self.client.blocking_portal.call(self._reload)

    def decide(self, stage: str = "signup", user: str = "u", **more: Any) -> Any:
        return (
            self.client.post("/v1/decisions", json={"stage": stage, "user_id": user, **more}).raise_for_status().json()
        )

    def failing(self) -> dict[str, str]:
        reply = self.client.get("/health/ready")
        assert reply.status_code == 200
        return dict(reply.json()["failing"])

    def arms(self, stage: str) -> list[str]:
        policies = self.client.get("/v1/policies").json()["policies"]
        return [arm["arm"] for one in policies if one["stage"] == stage for arm in one["arms"]]


@pytest.fixture
def serving(clock: Clock, catalogue_file: Path) -> Callable[..., Any]:
    """serving(store=, webhooks=): a running service of the small catalogue."""

    @contextmanager
    def serve(store: Store | None = None, **settings: Any) -> Iterator[Running]:
        chosen = Settings(app=str(catalogue_file), salt="salt", dev=True, **settings)
        made = create_service(chosen, clock=clock, store=store or MemoryStore())
        with TestClient(made.app, raise_server_exceptions=False) as client:
            yield Running(client, made.reload)

    return serve


@contextmanager
def begun(ground: SharedResources, catalogue: Catalogue) -> Iterator[CurrentParts]:
    current = CurrentParts(ground, build(ground, catalogue, {}))
    current.parts.worker.start()
    try:
        yield current
    finally:
        current.parts.worker.stop()


async def decide(current: CurrentParts, user: str) -> DecisionReply:
    """A decision at the basket, as a route makes it."""
    async with current.inside() as parts:
        return await parts.service.decide(DecisionRequest(stage="basket", user_id=user))


@pytest.fixture
def ground(clock: Clock) -> SharedResources:
    return SharedResources(Settings(app="shop.toml", salt="salt"), MemoryStore(), clock, Metrics())


# -- parts are replaced ----------------------------------------------------------------------------------------


def test_what_has_begun_is_finished_first_and_what_comes_meanwhile_waits(
    ground: SharedResources, catalogue: Catalogue, more: Catalogue
) -> None:
    async def story() -> None:
        with begun(ground, catalogue) as current:
            old = current.parts
            async with current.inside() as parts:
                replacing = asyncio.create_task(current.replace(more, {}))
                await asyncio.to_thread(lambda: None)  # it stops what sends, and closes
                while current._open.is_set():
                    await asyncio.sleep(0)
                asked = asyncio.create_task(decide(current, "u"))
                early = await parts.service.decide(DecisionRequest(stage="basket", user_id="v"))
                assert set(early.propensities) | set(early.excluded) == {"none", "reminder"}
                assert not replacing.done()
                assert not asked.done()
            late = await asked
            await replacing
            assert set(late.propensities) | set(late.excluded) == {"none", "reminder", "second"}
            assert current.parts is not old

    asyncio.run(story())


def test_one_that_was_woken_waits_again_if_it_closed_again(ground: SharedResources, catalogue: Catalogue) -> None:
    async def story() -> None:
        with begun(ground, catalogue) as current:
            current._open.clear()
            asked = asyncio.create_task(decide(current, "u"))
            await asyncio.sleep(0)
            current._open.set()
            current._open.clear()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not asked.done()
            current._open.set()
            await asked

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/decisions", DECISION),
        ("POST", "/v1/decisions/batch", {"decisions": [DECISION]}),
        ("GET", f"/v1/decisions/{SOME_ID}", None),
        ("POST", "/v1/outcomes", OUTCOME),
        ("POST", "/v1/outcomes/batch", {"outcomes": [OUTCOME]}),
        ("POST", "/v1/events", {"events": [{"event_id": "e", "event": "Seen", "user_id": "u"}]}),
        ("GET", "/v1/policies", None),
        ("POST", "/v1/policies/signup/rollback", {"approved_by": "ana", "reason": "refunds rose"}),
        ("PUT", "/v1/policies/signup/release", RELEASE),
        ("POST", "/v1/webhooks/dead-letters/retry", None),
        ("GET", "/health/ready", None),
        ("POST", "/v1/track", {"event": "Seen", "userId": "u"}),
        ("POST", "/v1/batch", {"batch": [{"type": "track", "event": "Seen", "userId": "u"}]}),
        ("POST", "/v1/data/collector", {"events": [{"kind": "tracking", "key": "Seen", "userKey": "u"}]}),
        ("POST", "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "u"}}),
        ("POST", "/ofrep/v1/evaluate/flags/signup", {"context": {"targetingKey": "u"}}),
        ("POST", "/offers/personalizer/v1.0/rank", {"actions": [{"id": "a", "features": []}]}),
        ("POST", "/offers/personalizer/v1.0/events/e/reward", {"value": 1}),
        ("POST", "/offers/personalizer/v1.0/events/e/activate", None),
    ],
)
def test_a_request_of_every_protocol_waits_while_parts_are_replaced(
    serving: Callable[..., Any], catalogue_file: Path, method: str, path: str, body: Any
) -> None:
    catalogue_file.write_text(catalogue_file.read_text(encoding="utf-8") + LOOP, encoding="utf-8")
    with serving() as service, futures.ThreadPoolExecutor(1) as pool:
        current, portal = service.current, service.client.blocking_portal
        portal.call(current._open.clear)
        asked = pool.submit(service.client.request, method, path, json=body)
        assert eventually(lambda: asked.done() or current._open._waiters)
        assert not asked.done(), asked.result().text
        portal.call(current._open.set)
        assert asked.result().status_code in {200, 201, 204, 400, 404}


def test_parts_that_cannot_be_built_leave_those_of_before(
    ground: SharedResources, catalogue: Catalogue, catalogue_text: str
) -> None:
    async def story() -> None:
        with begun(ground, catalogue) as current:
            with pytest.raises(LedgerMismatch, match="holds app 'shop'"):
                await current.replace(parse(catalogue_text.replace('app = "shop"', 'app = "bank"')), {})
            assert (await decide(current, "u")).stage == "basket"
            assert current.parts.catalogue == catalogue

    asyncio.run(story())


def test_decisions_before_and_after_are_recomputed_each_by_its_own_catalogue(
    store: Store, serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str
) -> None:
    texts = [catalogue_text.replace("[stages.instant]", MORE), catalogue_text.replace("floor = 0.02", "floor = 0.05")]
    with serving(store) as running:
        decided = [running.decide("basket", "u0"), running.decide("signup", "u0")]
        for n, text in enumerate([*texts, *texts], 1):
            catalogue_file.write_text(text, encoding="utf-8")
            running.reload()
            decided += [running.decide("basket", f"u{n}"), running.decide("signup", f"u{n}", context={"age": 9 * n})]
        assert running.failing() == {}
        salt = audit.salt_of(store, "salt")
        found = list(store.decisions())
        assert [str(one.decision.id) for one in found] == [one["decision_id"] for one in decided]
        assert [audit.differences(store, one, salt) for one in found] == [[]] * len(found)
        assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))


def test_a_candidate_goes_on_being_judged_after_a_reload(
    store: Store, serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str
) -> None:
    with serving(store) as running:
        snapshot = from_zip(running.client.get("/v1/policies/signup/snapshot").content)
        uniform = msgspec.structs.replace(
            snapshot, stage_spec=msgspec.structs.replace(snapshot.stage_spec, policy=Uniform())
        )
        sent = body(uniform, judge=True, decisions=4000)
        assert running.client.put("/v1/policies/signup/release", json=sent).status_code == 200
        made = [running.decide("signup", "u0")]
        catalogue_file.write_text(catalogue_text.replace('title = "Tip"', 'title = "New"'), encoding="utf-8")
        running.reload()
        made.append(running.decide("signup", "u1"))
        assert [one["release"]["judge"] for one in made] == [True, True]
        salt = audit.salt_of(store, "salt")
        assert [audit.differences(store, one, salt) for one in store.decisions()] == [[], []]


class Watched(MemoryStore):
    """Names of the stages whose open decisions were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = list[str]()

    def open_after(self, after: int, most: int, stages: Collection[str]) -> list[DecisionRecord]:
        self.read += stages
        return super().open_after(after, most, stages)


def test_open_decisions_are_read_again_where_the_declaration_changed_and_count_in_all(
    serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str, later: Callable[[float], int]
) -> None:
    """Both stages say how late answers come, so that open decisions count, in receipts too."""
    text = catalogue_text.replace('window = "1h", value = 10.0', 'window = "1h", value = 10.0, delay = "9m"')
    text = text.replace('window = "30m", value = 5.0', 'window = "30m", value = 5.0, delay = "9m"')
    catalogue_file.write_text(text, encoding="utf-8")
    store = Watched()
    with serving(store) as running:
        asked = [running.decide(stage, f"u{n}") for n in range(6) for stage in ("signup", "basket")]
        catalogue_file.write_text(text.replace("[stages.instant]", MORE), encoding="utf-8")
        store.read.clear()
        running.reload()
        assert set(store.read) == {"basket"}
        later(300)
        running.client.get("/v1/policies?wait=true").raise_for_status()
        asked += [running.decide(stage, f"w{n}") for n in range(3) for stage in ("signup", "basket")]
        for decision in asked:
            told = {"decision_id": decision["decision_id"], "kind": "reward"}
            running.client.post("/v1/outcomes", json=told).raise_for_status()
        later(60)
        running.client.get("/v1/policies?wait=true").raise_for_status()
        for n in range(6):
            running.decide("signup", f"v{n}")
            running.decide("basket", f"v{n}")
        salt, found = audit.salt_of(store, "salt"), list(store.decisions())
        assert all(one.decision.pending_basis.decisions >= 12 for one in found[12:]), (
            "what was open before counts after"
        )
        assert [audit.differences(store, one, salt) for one in found] == [[]] * len(found)


def test_what_was_learned_and_reported_goes_on(
    serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str, later: Callable[[float], int]
) -> None:
    with serving() as running:
        decision = running.decide()
        catalogue_file.write_text(catalogue_text.replace("floor = 0.02", "floor = 0.05"), encoding="utf-8")
        running.reload()
        told = {"decision_id": decision["decision_id"], "kind": "reward"}
        assert running.client.post("/v1/outcomes", json=told).json()["duplicate"] is False
        later(3600)
        (policy, *_) = running.client.get("/v1/policies?wait=true").json()["policies"]
        assert sum(arm["learned"] for arm in policy["arms"]) == 1


def test_an_unchanged_catalogue_is_not_built_anew(serving: Callable[..., Any]) -> None:
    with serving() as running:
        before = _writers()
        running.reload()
        assert _writers() == before


def _writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ledger-writer"]


def test_what_the_registry_said_is_not_forgotten(
    serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str
) -> None:
    said = {"reachable": False, "since": "2025-10-09T08:00:00Z", "detail": "refused"}
    with serving() as running:
        running.client.post("/v1/registry", json=said).raise_for_status()
        before = running.failing()
        catalogue_file.write_text(catalogue_text.replace("[stages.instant]", MORE), encoding="utf-8")
        running.reload()
        assert "second" in running.arms("basket")
        assert running.failing() == before != {}


# -- what is refused -------------------------------------------------------------------------------------------


def test_each_file_is_refused_for_itself_and_the_others_are_read(
    serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str, tmp_path: Path, receiver: Receiver
) -> None:
    hooks = tmp_path / "webhooks.toml"
    create_endpoint(hooks, "crm", receiver.url, ["decision"])
    good = hooks.read_text()
    with serving(webhooks=str(hooks)) as running:
        hooks.write_text("[endpoints.crm]\nurl = 'ftp://x'\n")
        catalogue_file.write_text(catalogue_text.replace("[stages.instant]", MORE), encoding="utf-8")
        running.reload()
        assert running.failing().keys() == {"reload webhooks"}
        assert "not a web address" in running.failing()["reload webhooks"]
        assert "second" in running.arms("basket")
        running.decide()
        assert receiver.wait(1), "the endpoint of before is told"
        hooks.write_text(good)
        catalogue_file.write_text(catalogue_text.replace("max = 100, default = 30", "max = 90, default = 30"))
        running.reload()
        assert running.failing().keys() == {"reload catalogue"}
        assert "declare schema = 2" in running.failing()["reload catalogue"]
        catalogue_file.unlink()
        running.reload()
        assert "No such file" in running.failing()["reload catalogue"]
        assert "second" in running.arms("basket")


# -- webhooks --------------------------------------------------------------------------------------------------


def test_endpoints_come_and_go_and_one_that_came_back_goes_on_where_it_was(
    serving: Callable[..., Any], tmp_path: Path, receiver: Receiver
) -> None:
    hooks = tmp_path / "webhooks.toml"
    create_endpoint(hooks, "crm", receiver.url, ["decision"])
    one = hooks.read_text()
    with closing(Receiver()) as other, serving(webhooks=str(hooks)) as running:
        first = running.decide()
        receiver.wait(1)
        create_endpoint(hooks, "mail", other.url, ["decision"])
        two = hooks.read_text()
        running.reload()
        assert sorted(senders()) == ["webhooks-crm", "webhooks-mail"]
        second = running.decide(user="v")
        receiver.wait(2)
        assert [event["subject"] for event in other.wait(1)] == [second["decision_id"]]
        hooks.write_text(two.replace(one, ""))
        running.reload()
        assert senders() == ["webhooks-mail"]
        third = running.decide(user="w")
        other.wait(2)
        assert len(receiver.got) == 2
        hooks.write_text(two)
        running.reload()
        told = [event["subject"] for event in receiver.wait(3)]
        assert told == [decision["decision_id"] for decision in (first, second, third)]
    assert eventually(lambda: not senders())


def test_webhooks_go_on_after_the_catalogue_was_replaced(
    serving: Callable[..., Any], catalogue_file: Path, catalogue_text: str, tmp_path: Path, receiver: Receiver
) -> None:
    hooks = tmp_path / "webhooks.toml"
    create_endpoint(hooks, "crm", receiver.url, ["decision"])
    with serving(webhooks=str(hooks)) as running:
        decided = [running.decide(user=f"u{n}")["decision_id"] for n in range(3)]
        receiver.wait(3)
        catalogue_file.write_text(catalogue_text.replace("[stages.instant]", MORE), encoding="utf-8")
        running.reload()
        decided.append(running.decide(user="v")["decision_id"])
        assert [event["subject"] for event in receiver.wait(4)] == decided
        assert senders() == ["webhooks-crm"]


# -- signals ---------------------------------------------------------------------------------------------------


def test_a_signal_while_the_service_starts_is_kept_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with server.hangups() as early:
        assert early == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert eventually(lambda: early) == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) is before


def test_signals_that_come_together_are_one_and_none_comes_after_the_end(
    clock: Clock, catalogue_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_service(Settings(app=str(catalogue_file), salt="salt", dev=True), clock=clock, store=MemoryStore())
    read = list[int]()

    async def counted() -> None:
        read.append(1)
        await asyncio.sleep(0)

    monkeypatch.setattr(made.reload, "_reload", counted)

    async def story() -> None:
        early = [asyncio.create_task(made.reload()) for _ in range(3)]
        await asyncio.sleep(0)
        assert read == [], "nothing is read anew before the service runs"
        async with made.reload.running():
            await asyncio.gather(*early)
            assert read == [1]
            await asyncio.gather(*(made.reload() for _ in range(5)))
            assert 2 <= len(read) <= 6
        n = len(read)
        late = asyncio.create_task(made.reload())
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(read) == n
        late.cancel()

    asyncio.run(story())
