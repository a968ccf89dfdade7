"""A real MLflow server, a real service on a real ledger, and people who use it. Each file of tests has a service and
an empty registry of its own, so that files run in any order, and alone.
"""

import importlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from api.server import free_port
from bandit.catalogue.loading import read_shipped
from journey_bandit import mlflow_server, processes
from journey_bandit.main import group
from tests.waiting import PATIENCE

with warnings.catch_warnings():  # of its own type hints, each time it is imported first
    warnings.simplefilter("ignore")
    importlib.import_module("mlflow.pyfunc")

from mlflow.entities import LifecycleStage, ViewType
from mlflow.tracking import MlflowClient

HOST, SALT, APP, STAGE = "127.0.0.1", "pepper", "travel", "cart"
MODEL = f"{APP}-{STAGE}"


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URI, folder) of a real server with the light settings, started once: that takes longer than most tests."""
    os.environ.update(mlflow_server.QUIET)
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port(HOST)
    server = mlflow_server.start(folder, HOST, port)
    with processes.stopping(server):
        uri = f"http://{HOST}:{port}"
        processes.wait(server, f"{uri}/health", folder / "server.log")
        yield uri, folder


@pytest.fixture(scope="module")
def mlflow(tracking: tuple[str, Path]) -> Iterator[tuple[str, Path]]:
    """(URI, folder) of that server, which knows no model and no experiment of another file of tests."""
    yield tracking
    client = MlflowClient(tracking[0], tracking[0])
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for experiment in client.search_experiments(ViewType.ALL):
        number, name = experiment.experiment_id, experiment.name
        if number == "0" or name.endswith(f" {number}"):  # MLflow's own, and those of the files before
            continue
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            client.restore_experiment(number)
        client.rename_experiment(number, f"{name} {number}")  # MLflow keeps the name of a deleted one
        client.delete_experiment(number)


class Shop(NamedTuple):
    """A running service, its ledger and its registry."""

    url: str
    store: str
    mlflow: str
    artifacts: Path
    client: httpx.Client

    def people(self, n: int, seed: int) -> None:
        """n of them are decided for; some book at once, the others stay silent until their window ends."""
        rng = np.random.default_rng(seed)
        asked = [
            {
                "stage": STAGE,
                "user_id": f"{seed}-{i}",
                "decision_id": str(uuid.UUID(int=seed * 10**6 + i)),
                "context": c,
            }
            for i, c in enumerate(contexts(rng, n))
        ]
        for start in range(0, n, 500):
            reply = self.client.post("/v1/decisions/batch", json={"decisions": asked[start : start + 500]})
            made = [item["decision"] for item in reply.json()["decisions"]]
            booked = [
                {"decision_id": d["decision_id"], "kind": "reward", "value": 1}
                for d in made
                if rng.random() < (0.5 if d["nudge"]["id"] == "price_freeze" else 0.1)
            ]
            self.client.post("/v1/outcomes/batch", json={"outcomes": booked}).raise_for_status()
        self.settle()

    def settle(self) -> None:
        """Time passes until every window has ended; all of it is learned."""
        (window,) = [s["window_seconds"] for s in self.get("/v1/stages")["stages"] if s["stage"] == STAGE]
        passed = {"microseconds": int(window * 1e6) + 1}
        self.client.post("/v1/clock", json=passed).raise_for_status()
        self.get("/v1/policies?wait=true")

    def get(self, path: str) -> Any:
        """What the service answers."""
        reply = self.client.get(path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ask(self, **context: Any) -> Any:
        """One decision."""
        body = {"stage": STAGE, "user_id": str(uuid.uuid4()), "context": context}
        reply = self.client.post("/v1/decisions", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def release(self) -> str | None:
        """The registry's version that decides, None if there is none."""
        made = self.ask()
        return made["release"]["version"] if "release" in made else None

    def run(self, *words: str, typed: str | None = None) -> Result:
        """A command in this process, as a person types it; `typed`: what is answered."""
        env = {"JOURNEY_BANDIT_MLFLOW": self.mlflow}
        return CliRunner().invoke(group, list(words), env=env, input=typed, catch_exceptions=True)

    def ok(self, *words: str) -> str:
        """Its output, if it ended well."""
        done = self.run(*words)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output


def contexts(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """What is known of n people."""
    return [
        {
            "price": float(rng.uniform(20, 3000)),
            "searches_24h": int(rng.integers(0, 40)),
            "returning": bool(rng.random() < 0.5),
            "device": str(rng.choice(["mobile", "desktop"])),
        }
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def shop(mlflow: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The service of the travel app on a driven clock, after 1,200 people, for one file of tests. Its cart is learned
    by `linear`, whose sums are the same however rows were batched.
    """
    folder, port = tmp_path_factory.mktemp("shop"), free_port(HOST)
    store, url, log = f"sqlite:///{folder / 'travel.db'}", f"http://{HOST}:{port}", folder / "serve.log"
    text, declared = read_shipped(APP), 'policy = { name = "centred", prior_mean = 0.14 }'
    assert text.count(declared) == 1
    (app := folder / "travel.toml").write_text(text.replace(declared, declared.replace("centred", "linear")), "utf-8")
    options = (
        "--app",
        str(app),
        "--store",
        store,
        "--port",
        str(port),
        "--dev",
        "--salt",
        SALT,
        "--clock",
        "driven",
    )
    with processes.stopping(server := processes.serve(*options, log=log)):
        processes.wait(server, f"{url}/health/ready", log)
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            made = Shop(url, store, mlflow[0], mlflow[1] / "artifacts", client)
            made.people(1200, 1)
            yield made


@pytest.fixture(scope="module")
def published(shop: Shop) -> Callable[[str], str]:
    """published(policy): the version of a candidate with that policy, made once; "" for the stage's own."""
    known: dict[str, str] = {}

    def version(policy: str) -> str:
        if policy not in known:
            words = ("publish", STAGE, "--store", shop.store, "--json", *(("--policy", policy) if policy else ()))
            known[policy] = json.loads(shop.ok(*words).splitlines()[-1])["version"]
        return known[policy]

    return version
