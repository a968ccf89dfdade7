"""Simulated and replayed people pass the tokens of their decisions along, where the service wants them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.records import Outcome
from simulations import scenario
from simulations.live import driver
from simulations.live.client import ServiceClient
from simulations.live.replay import hillstrom_replay

APPS = Path(driver.__file__).parents[2] / "bandit" / "catalogue" / "apps"
OUTCOMES = r"(?ms)^\[stages\.\w+\.outcomes\]\n.*?(?=^\[|\Z)"  # events bring no tokens


@contextmanager
def serving(folder: Path, app: str, store: MemoryStore) -> Iterator[ServiceClient]:
    """The service of an app whose rewards are of the decider, on a driven clock, and its client."""
    text = (APPS / f"{app}.toml").read_text(encoding="utf-8")
    (folder / f"{app}.toml").write_text(f'rewards_of = "decider"\n{re.sub(OUTCOMES, "", text)}', encoding="utf-8")
    settings = Settings(app=str(folder / f"{app}.toml"), salt="salt", dev=True, clock="driven")
    with TestClient(create_app(settings, store=store)) as http:
        client = ServiceClient("http://service")
        client._http.close()
        client._http = http  # which this block closes
        yield client


def outcomes(store: MemoryStore) -> list[Outcome]:
    ids = [record.decision.id for record in store.decisions()]
    return [outcome for record in store.decisions_by_id(ids).values() for outcome in record.outcomes]


def test_simulated_people_bring_the_tokens_of_their_decisions(tmp_path: Path) -> None:
    world, store = scenario.load("travel"), MemoryStore()
    with serving(tmp_path, "travel", store) as client:
        stage = client.snapshot(world.stage).stage_spec
        ran = driver.drive(client, world, stage, seed=7, users=200, progress=lambda _: None)
        told = [outcome.value for outcome in outcomes(store)]
    assert told == [1.0] * int(ran.log.reward.sum())
    assert len(told) > 20


def test_replayed_customers_bring_the_tokens_of_their_decisions(tmp_path: Path) -> None:
    store = MemoryStore()
    with serving(tmp_path, "hillstrom", store) as client:
        ran = hillstrom_replay(client, seed=1, limit=300, progress=lambda _: None)
        kinds = [outcome.kind for outcome in outcomes(store)]
    assert kinds.count("activation") == kinds.count("reward") == ran.agreed.sum() > 50
