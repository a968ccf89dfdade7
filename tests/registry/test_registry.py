"""Registry and service, both real: what is approved decides within seconds, to the bit, and nothing else does."""

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.tracking import MlflowClient

from bandit.snapshot import from_zip, pack
from benchmarks.load.registry import black_hole
from experiments.mlflow import reviewer_view
from experiments.mlflow.registry import NOTE, Registry
from journey_bandit import mlflow_server, processes
from journey_bandit.registry.registry_sync import RegistrySync
from journey_bandit.registry.run_queue import RunQueue
from journey_bandit.service.service_client import AdminClient
from tests.registry.conftest import MODEL, SALT, Shop, contexts
from tests.waiting import PATIENCE, eventually

Published = Callable[[str], str]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def sync(shop: Shop, tmp_path: Path) -> Iterator[RegistrySync]:
    """The sidecar, one round at a time, without live runs."""
    with AdminClient(shop.url) as service:
        yield RegistrySync(Registry(shop.mlflow), service, "", RunQueue(tmp_path), every=1.0, publish_every=0.0)


@contextmanager
def syncing(shop: Shop, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The sidecar as a process."""
    words = ("registry", "sync", "--url", shop.url, "--mlflow", shop.mlflow, "--every", "0.5", "--spool", str(folder))
    with subprocess.Popen([sys.executable, "-m", "journey_bandit", *words], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def promote(shop: Shop, version: str, *more: str) -> str:
    return shop.ok("promote", "travel", "cart", version, "--why", "test", "--override", "test", "--who", "ana", *more)


def failing(shop: Shop) -> dict[str, str]:
    found: dict[str, str] = shop.get("/health/ready")["failing"]
    return found


def test_the_model_the_files_and_the_service_give_the_same_bits(
    shop: Shop, published: Published, sync: RegistrySync
) -> None:
    """For a policy with independent and one with correlated scores: the vector and the arm of the draw."""
    for policy in ("", "hierarchical"):
        promote(shop, published(policy))
        sync.round()
        asked = [{"decision_id": str(uuid.uuid4()), **c} for c in contexts(np.random.default_rng(5), 20)]
        made = []
        for context in asked:
            given = {k: v for k, v in context.items() if k != "decision_id"}
            body = {"stage": "cart", "user_id": "u", "decision_id": context["decision_id"], "context": given}
            made.append(shop.client.post("/v1/decisions", json=body).json())
        assert {m["release"]["version"] for m in made} == {published(policy)}
        frame = pd.DataFrame(asked).assign(excluded=[",".join(m["excluded"]) for m in made])
        model = pyfunc.load_model(f"models:/{MODEL}@champion")
        scored = model.predict(frame, params={"salt": SALT}).to_dict(orient="records")
        for mine, theirs in zip(scored, made, strict=True):
            assert {a: mine[f"p_{a}"] for a in theirs["propensities"]} == theirs["propensities"]
            assert all(mine[f"p_{a}"] == 0.0 for a in theirs["excluded"])
            assert (mine["arm"], mine["propensity"]) == (theirs["nudge"]["id"], theirs["propensity"])


def test_a_promotion_returns_when_it_is_live_and_a_killed_sync_goes_on(
    shop: Shop, published: Published, tmp_path: Path
) -> None:
    first, second = published(""), published("hierarchical")
    with syncing(shop, tmp_path) as process:
        promote(shop, first, "--url", shop.url)
        said = promote(shop, second, "--url", shop.url)
        assert shop.release() == second, said
        assert "decides with it after" in said
        process.send_signal(signal.SIGKILL)
        process.wait()
    promote(shop, first)
    assert shop.release() == second  # nobody brings it
    with syncing(shop, tmp_path):
        assert eventually(lambda: shop.release() == first, 0.1)


def test_an_alias_that_was_only_clicked_does_not_go_live(shop: Shop, published: Published, sync: RegistrySync) -> None:
    """Neither on a version that was never approved, nor on one that was once, nor by taking it away."""
    first, second, never = published(""), published("hierarchical"), published("uniform")
    promote(shop, first)
    promote(shop, second)
    sync.round()
    client = MlflowClient(shop.mlflow, shop.mlflow)
    for clicked in (never, first, None):
        if clicked:
            client.set_registered_model_alias(MODEL, "champion", clicked)
        else:
            client.delete_registered_model_alias(MODEL, "champion")
        sync.round()
        assert shop.release() == second
        assert "only `promote` and `rollback` count" in failing(shop)["registry cart"]
    promote(shop, second)
    sync.round()
    assert "registry cart" not in failing(shop)


def test_a_promotion_that_is_cut_short_serves_nothing_new_and_the_same_command_completes_it(
    shop: Shop, published: Published, sync: RegistrySync, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = published(""), published("hierarchical")
    promote(shop, first)
    sync.round()
    lines = len(Registry(shop.mlflow).audit(MODEL))
    words = ("promote", "travel", "cart", second, "--why", "cut", "--override", "test")
    for step in ("set_registered_model_tag", "set_registered_model_alias"):
        with monkeypatch.context() as cut:
            cut.setattr(MlflowClient, step, _killed)
            assert shop.run(*words).exit_code == 1
        sync.round()
        assert shop.release() == first
    shop.ok(*words)
    sync.round()
    assert shop.release() == second
    done = Registry(shop.mlflow).audit(MODEL)
    assert len(done) == lines + 1
    assert (done[-1].version, done[-1].replaces, done[-1].back) == (second, first, first)
    assert Registry(shop.mlflow).tags(MODEL, second)["replaces"] == first


def _killed(*_: object, **__: object) -> None:
    raise OSError("the process was killed here")


def test_rollback_restores_the_bytes_and_says_their_hash(shop: Shop, published: Published, sync: RegistrySync) -> None:
    first, second = published(""), published("hierarchical")

    def bytes_now() -> dict[str, bytes]:
        return pack(from_zip(shop.client.get("/v1/policies/cart/snapshot").content))

    promote(shop, first)
    sync.round()
    before = bytes_now()
    promote(shop, second)
    sync.round()
    assert bytes_now() != before
    said = shop.ok("rollback", "travel", "cart", "--why", "worse", "--who", "ben")
    sync.round()
    assert bytes_now() == before
    assert json.loads(before["policy.json"])["belief_sha256"] in said
    lines = Registry(shop.mlflow).audit(MODEL)
    assert (lines[-1].kind, lines[-1].version, lines[-1].replaces, lines[-1].by) == ("rollback", first, second, "ben")
    assert lines[-1].sha256 == hashlib.sha256(before["policy.json"]).hexdigest()
    assert "worse" in shop.ok("registry", "audit", "travel", "cart")
    shop.ok("rollback", "travel", "cart", "--why", "learn live", "--to", "learned")
    sync.round()
    assert shop.release() is None


def test_the_gate_refuses_what_the_rule_does_not_promote(shop: Shop, published: Published) -> None:
    done = shop.run("promote", "travel", "cart", published("uniform"), "--why", "x", "--store", shop.store)
    assert done.exit_code == 1
    assert "the gate says" in str(done.exception)
    assert "--override" in str(done.exception)
    assert Registry(shop.mlflow).tags(MODEL, published("uniform"))["review"] == "waiting"


def test_a_tampered_belief_is_refused_and_the_last_good_one_stays(
    shop: Shop, published: Published, sync: RegistrySync
) -> None:
    first, bad = published(""), published("linear:alpha=0.7")
    promote(shop, first)
    sync.round()
    promote(shop, bad)
    sha = Registry(shop.mlflow).tags(MODEL, bad)["policy_sha256"]
    (file,) = [
        f for f in shop.artifacts.rglob("posterior.npz")
        if hashlib.sha256((f.parent / "policy.json").read_bytes()).hexdigest() == sha
    ]  # fmt: skip
    good = file.read_bytes()
    file.write_bytes(good[:-200] + bytes([good[-200] ^ 1]) + good[-199:])
    sync.round()
    assert shop.release() == first
    assert "sha256 differs" in failing(shop)["registry cart"]
    policy = file.with_name("policy.json")
    text = policy.read_bytes()
    policy.write_bytes(text.replace(b'"version"', b'"versio\\u006e"'))
    file.write_bytes(good)
    sync.round()
    assert shop.release() == first
    assert "not the one that was approved" in failing(shop)["registry cart"]
    policy.write_bytes(text)
    sync.round()
    assert shop.release() == bad
    assert "registry cart" not in failing(shop)


def test_nothing_is_pickled(shop: Shop, published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    version = published("")
    assert len(pyfunc.load_model(f"models:/{MODEL}/{version}").predict(pd.DataFrame({"price": [100.0]}))) == 1
    files = [f for f in shop.artifacts.rglob("*") if f.is_file()]
    assert not [f for f in files if f.suffix in {".pkl", ".pickle", ".joblib"} or f.name == "python_model.pkl"]
    for file in files:
        assert not file.read_bytes().startswith((b"\x80\x04", b"\x80\x05")), file
        if file.suffix == ".npz":
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


def test_a_registry_that_never_answers_stops_nothing_and_all_is_logged_afterwards(
    shop: Shop, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    published("")
    clock = itertools.count(time.time_ns() // 1000, 10_000_000)  # 10 s pass between two looks
    before = len(_live_runs(shop))
    options: dict[str, Any] = {"every": 1.0, "publish_every": 5.0, "clock": lambda: next(clock)}
    with AdminClient(shop.url) as service:
        with black_hole() as uri:
            lost = RegistrySync(Registry(uri), service, shop.store, RunQueue(tmp_path), **options)
            for _ in range(3):
                lost.round()
                lost.work()
                assert shop.ask()["propensities"]
        said = shop.get("/health/ready")
        assert said["status"] == "ok"
        assert said["failing"]["registry"].startswith("unreachable since 20")
        waiting = len(RunQueue(tmp_path))
        assert waiting >= 2  # only the stage that people use has something to show
        assert f"journey_bandit_registry_backlog {waiting}.0" in shop.client.get("/metrics").text
        back = RegistrySync(
            Registry(shop.mlflow), service, shop.store, RunQueue(tmp_path), **{**options, "publish_every": 1e6}
        )
        back.round()
        back.work()
        assert len(RunQueue(tmp_path)) == 0
        assert len(_live_runs(shop)) == before + waiting
        back.round()
        assert "registry" not in failing(shop)


def _live_runs(shop: Shop) -> list[Any]:
    client = MlflowClient(shop.mlflow, shop.mlflow)
    experiment = client.get_experiment_by_name(MODEL)
    return list(client.search_runs([experiment.experiment_id], "tags.kind = 'live'")) if experiment else []


def test_a_challenger_is_scored_on_traffic_it_was_not_shown_in(
    shop: Shop, published: Published, tmp_path: Path
) -> None:
    version = published("hierarchical")
    shop.ok("shadow", "travel", "cart", version)
    with AdminClient(shop.url) as service:
        options: dict[str, Any] = {"every": 1.0, "publish_every": 0.0}
        mine = RegistrySync(Registry(shop.mlflow), service, shop.store, RunQueue(tmp_path), **options)
        before = shop.release()
        mine.round()
        mine.work()
        assert shop.release() == before
    run = MlflowClient(shop.mlflow, shop.mlflow).get_run(Registry(shop.mlflow).run_of(MODEL, version))
    assert run.data.metrics["shadow_n"] >= 300
    assert 0.0 < run.data.metrics["shadow_match"] < 100.0
    assert "draws the same nudge in" in Registry(shop.mlflow).tags(MODEL, version)["shadow"]
    assert "draws the same nudge in" in shop.ok("shadow", "travel", "cart", "--store", shop.store)
    shop.ok("shadow", "travel", "cart", "none")
    assert Registry(shop.mlflow).standing(MODEL).challenger is None


def test_the_sync_says_anew_what_is_live_and_what_it_earns(shop: Shop, published: Published, tmp_path: Path) -> None:
    """On the page of the model and on the run that waits for a reviewer, as of a time, after every move and as often as
    live runs are logged; nothing else of the description changes.
    """
    client, registry = MlflowClient(shop.mlflow, shop.mlflow), Registry(shop.mlflow)
    said = shop.ok("publish", "cart", "--store", shop.store, "--json", "--policy", "linear:alpha=0.7")
    waiting, now = json.loads(said.splitlines()[-1])["version"], [1_800_000_000_000_000]
    run = registry.run_of(MODEL, waiting)
    before = client.get_run(run).data.tags[NOTE].splitlines()
    promote(shop, published(""))
    with AdminClient(shop.url) as service:
        hour = {"every": 1.0, "publish_every": 3600.0}
        mine = RegistrySync(registry, service, shop.store, RunQueue(tmp_path), **hour, clock=lambda: now[0])
        mine.round()
        mine.work()
        after = client.get_run(run).data.tags[NOTE].splitlines()
        changed = [line for line, was in zip(after, before, strict=True) if line != was]
        assert [line.partition(".")[0] for line in changed] == ["14", "15"]
        live = f"As of 2027-01-15T08:00:00Z: version {published('')}, since 2"
        assert f"14. **What is live, since when, who approved it, why?** {live}" in changed[0]
        page = client.get_registered_model(MODEL).description
        assert page.startswith(f"**Live as of 2027-01-15T08:00:00Z: version {published('')}, since ")
        assert "What is live, as of 2027-01-15T08:00:00Z: " in page
        now[0] += 60_000_000
        mine.work()
        assert client.get_registered_model(MODEL).description == page, "nothing moved, and an hour has not passed"
        now[0] += 3_600_000_000
        mine.work()
        assert "As of 2027-01-15T09:01:00Z" in client.get_run(run).data.tags[NOTE]
        assert "What is live, as of 2027-01-15T09:01:00Z: " in client.get_registered_model(MODEL).description
    shop.ok("rollback", "travel", "cart", "--why", "clean up", "--to", "learned", "--url", shop.url)


def test_a_run_holds_what_a_reviewer_asks_for(shop: Shop, published: Published) -> None:
    client, registry = MlflowClient(shop.mlflow, shop.mlflow), Registry(shop.mlflow)
    version = published("")
    run = client.get_run(registry.run_of(MODEL, version))
    assert {"net_gain", "net_low", "net_high"} <= run.data.metrics.keys()
    assert {"lift_pp", "lift_lcb", "lift_ucb", "dr_pct", "ess", "max_w", "min_prop", "n"} <= run.data.metrics.keys()
    assert {"algorithm", "arms", "floor", "data_window", "belief_sha256"} <= run.data.params.keys()
    assert {"kind", "gate", "vs_champion", "policy_sha256"} <= run.data.tags.keys()
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("linear at travel/cart, candidate")
    first = note.split("\n", 1)[0]
    assert "no nudge, " in first
    assert "EUR per decision net of costs [" in first
    assert "points" not in first
    names = {a.path for a in client.list_artifacts(run.info.run_id, "review")}
    assert {"review/report.html", "review/ope.json", "review/segments.json"} <= names
    lines = [key for key in run.data.metrics if "/" in key]  # those that are constant are not logged
    assert "regret EUR/policy" in lines
    for key in lines:
        assert 1 < len(client.get_metric_history(run.info.run_id, key)) <= 300
    tag = client.get_experiment(run.info.experiment_id).tags[f"{reviewer_view.TAG_PREFIX}reviewer"]
    assert json.loads(tag)["name"] == "Reviewer"


@pytest.mark.slow
def test_a_clean_environment_with_the_distribution_loads_and_serves_the_model(
    shop: Shop, published: Published, tmp_path: Path
) -> None:
    """Nothing of this checkout on the path; the same bits from `predict` there, and from `mlflow models serve`."""
    version, port, row = published(""), _free(), {"price": 420.0, "u": 0.5}
    mine = pyfunc.load_model(f"models:/{MODEL}/{version}").predict(pd.DataFrame([row])).to_dict(orient="records")[0]
    python = str(tmp_path / "venv" / "bin" / "python")
    constraints = str(ROOT / "constraints.txt")
    install = [python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{ROOT}[experiments]"]
    for command in ([sys.executable, "-m", "venv", str(tmp_path / "venv")], install):
        subprocess.run(command, check=True, timeout=PATIENCE, cwd=tmp_path)
    env = {**os.environ, **mlflow_server.QUIET, "MLFLOW_TRACKING_URI": shop.mlflow}
    env |= {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    script = (
        "import json, sys, pandas, mlflow.pyfunc\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(json.dumps(model.predict(pandas.DataFrame([json.loads(sys.argv[2])])).to_dict(orient='records')[0]))"
    )
    model = f"models:/{MODEL}/{version}"
    command = [python, "-c", script, model, json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == mine
    words = ("models", "serve", "-m", model, "-p", str(port), "--env-manager", "local")
    log = tmp_path / "serve.log"
    with log.open("ab") as file:
        server = subprocess.Popen([python, "-m", "mlflow", *words], env=env, stdout=file, stderr=file, cwd=tmp_path)
    with processes.stopping(server):
        processes.wait(server, f"http://127.0.0.1:{port}/ping", log)
        body = {"dataframe_records": [row]}
        reply = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=PATIENCE).json()
    assert reply["predictions"][0] == mine


def _free() -> int:
    from api.server import free_port

    return free_port("127.0.0.1")
