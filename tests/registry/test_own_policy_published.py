"""A policy of an installed package through the registry: learned by a service, published, approved, decided with to the
bit; and refused by a service that lacks the package. The package is that of the tutorial, laid out as pip lays it out.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import mlflow as mlflow_client
import pytest
from mlflow import pyfunc

from api.server import free_port
from experiments.mlflow.registry import Registry
from journey_bandit import processes
from tests.journey_bandit.test_own_policy import CATALOGUE, ROOT, lay_out
from tests.waiting import PATIENCE, eventually

HOST, MODEL = "127.0.0.1", "shop-cart"
DECISIONS = 300

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Taught(NamedTuple):
    """A service whose cart is decided by the package's policy, after 300 people, and the registry beside it."""

    url: str
    store: str
    site: Path
    mlflow: str
    client: httpx.Client

    def run(self, *words: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own, which finds the package if it is `installed`."""
        path = os.pathsep.join(map(str, [self.site, ROOT] if installed else [ROOT]))
        env = os.environ | {"PYTHONPATH": path, "JOURNEY_BANDIT_MLFLOW": self.mlflow}
        command = [sys.executable, "-m", "journey_bandit", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, cwd=ROOT)

    def ok(self, *words: str) -> str:
        """The output of a command that ended well."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def decide(self, user: str, items: int) -> dict[str, Any]:
        """One decision of the cart."""
        body = {"stage": "cart", "user_id": user, "context": {"items": items}}
        reply = self.client.post("/v1/decisions", json=body)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


@pytest.fixture(scope="module")
def taught(mlflow: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    folder, port = tmp_path_factory.mktemp("own"), free_port(HOST)
    site, log, url = lay_out(folder / "site"), folder / "serve.log", f"http://{HOST}:{port}"
    client = httpx.Client(base_url=url, timeout=PATIENCE)
    made = Taught(url, f"sqlite:///{folder / 'shop.db'}", site, mlflow[0], client)
    with pytest.MonkeyPatch.context() as env, client:
        env.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
        options = ("--app", str(CATALOGUE), "--store", made.store, "--port", str(port), "--dev", "--salt", "docs")
        with processes.stopping(server := processes.serve(*options, log=log)):
            processes.wait(server, f"{url}/health/ready", log)
            for n in range(DECISIONS):
                decision = made.decide(f"u{n}", n % 7)
                value = int(n % 10 < {"none": 1, "reminder": 2, "discount": 8}[decision["nudge"]["id"]])
                told = {"decision_id": decision["decision_id"], "kind": "reward", "value": value}
                assert client.post("/v1/outcomes", json=told).status_code == 200
            client.get("/v1/policies?wait=true").raise_for_status()
            yield made


@pytest.fixture(scope="module")
def version(taught: Taught) -> str:
    """The version of what the ledger has taught it."""
    return str(json.loads(taught.ok("publish", "cart", "--store", taught.store, "--json").splitlines()[-1])["version"])


def test_a_policy_of_ones_own_is_published_approved_and_decides_with_the_reviewed_bytes(
    taught: Taught, version: str, tmp_path: Path
) -> None:
    taught.ok("promote", "shop", "cart", version, "--why", "test", "--override", "test", "--who", "ana")
    with syncing(taught, tmp_path / "spool"):
        assert eventually(lambda: releases(taught), pause=0.2)
    (release,) = releases(taught)
    decision = taught.decide("after", 3)
    assert decision["release"]["version"] == release["version"] == version
    approved = Registry(taught.mlflow).standing(MODEL).serves
    assert approved is not None
    files = Registry(taught.mlflow).files(MODEL, version)
    assert {release["sha256"], approved.sha256} == {hashlib.sha256(files["policy.json"]).hexdigest()}
    assert '"softmax"' in files["policy.json"].decode()
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"items": 3, "decision_id": decision["decision_id"]}]))
    (scored,) = scored_by_the_model(taught, version, rows)
    assert {arm: scored[f"p_{arm}"] for arm in decision["propensities"]} == decision["propensities"]
    assert (scored["arm"], scored["propensity"]) == (decision["nudge"]["id"], decision["propensity"])


def releases(taught: Taught) -> list[dict[str, Any]]:
    """Releases of the service."""
    return list(taught.client.get("/v1/releases").json()["releases"])


@contextmanager
def syncing(taught: Taught, spool: Path) -> Iterator[None]:
    """The sidecar as a process, where the package is installed."""
    words = ("--url", taught.url, "--mlflow", taught.mlflow, "--every", "0.5", "--spool", str(spool))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(taught.site), str(ROOT)])}
    command = [sys.executable, "-m", "journey_bandit", "registry", "sync", *words]
    with subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def scored_by_the_model(taught: Taught, version: str, rows: Path) -> list[dict[str, Any]]:
    """What MLflow's own pyfunc model of the version says of the rows, where the package is installed."""
    script = (
        "import json, sys, pandas, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "rows = pandas.DataFrame(json.load(open(sys.argv[3])))\n"
        "print(json.dumps(model.predict(rows, params={'salt': 'docs'}).to_dict(orient='records')))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(taught.site), str(ROOT)])}
    command = [sys.executable, "-c", script, taught.mlflow, f"models:/{MODEL}/{version}", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_where_the_package_is_missing_the_registrys_commands_say_in_one_line_what_to_install(
    taught: Taught, version: str
) -> None:
    for words in (
        ("promote", "shop", "cart", version, "--why", "test", "--override", "test"),
        ("publish", "cart", "--store", taught.store),
    ):
        done = taught.run(*words, installed=False)
        assert done.returncode == 1, words
        (line,) = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
        assert "no policy 'softmax' is installed → install the package that provides it" in line


def test_the_model_asks_pip_for_the_package_of_the_policy(taught: Taught, version: str) -> None:
    """`mlflow models serve` installs what the model requires; without the policy's package it could not load."""
    mlflow_client.set_tracking_uri(taught.mlflow)
    required = Path(pyfunc.get_model_dependencies(f"models:/{MODEL}/{version}")).read_text("utf-8").splitlines()
    assert "softmax-policy==1.0" in required
    assert any(line.startswith("journey-bandit[experiments]==") for line in required)
