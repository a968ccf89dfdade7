"""The emergency exit: whatever was deleted in MLflow, and without it, a rollback goes through and is told later."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from benchmarks.load.registry import black_hole
from experiments.mlflow.registry import Registry
from journey_bandit.registry.registry_sync import RegistrySync
from journey_bandit.registry.run_queue import RunQueue
from journey_bandit.service.service_client import AdminClient
from tests.registry.conftest import SALT, Shop

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")

WHY = ("--why", "refunds rose", "--who", "ben")


class Bench:
    """The commands, one stage of the shop with two approved versions, and the sidecar by rounds."""

    def __init__(self, shop: Shop, stage: str, folder: Path, service: AdminClient):
        self.shop, self.stage, self.model = shop, stage, f"travel-{stage}"
        self.client = MlflowClient(shop.mlflow, shop.mlflow)
        self.sync = RegistrySync(Registry(shop.mlflow), service, "", RunQueue(folder), every=1.0, publish_every=0.0)
        self.first, self.second = (self._published(policy) for policy in ("uniform", "linear:alpha=0.3"))
        for version in (self.first, self.second):
            why = f"approved {version}"
            shop.ok("promote", "travel", stage, version, "--why", why, "--override", "test", "--who", "ana")
            self.sync.round()
            assert self.decides() == version

    def _published(self, policy: str) -> str:
        said = self.shop.ok("publish", self.stage, "--store", self.shop.store, "--json", "--policy", policy)
        return str(json.loads(said.splitlines()[-1])["version"])

    def decides(self) -> str:
        kept: list[dict[str, Any]] = self.shop.get("/v1/releases")["releases"]
        return str([release["version"] for release in kept if release["stage"] == self.stage][-1])

    def back(self, *more: str) -> str:
        return self.shop.ok("rollback", "travel", self.stage, *WHY, *more)

    def run_of(self, version: str) -> str:
        return str(self.client.get_model_version(self.model, version).run_id)

    def audit_run(self) -> str:
        (experiment,) = self.client.search_experiments(ViewType.ALL, filter_string=f"name = '{self.model}'")
        (run,) = self.client.search_runs([experiment.experiment_id], "tags.kind = 'audit'")
        return str(run.info.run_id)


@pytest.fixture
def bench(shop: Shop, tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    with AdminClient(shop.url) as service:
        yield lambda stage: Bench(shop, stage, tmp_path, service)


def delete(bench: Bench, what: str) -> None:
    client = bench.client
    if what == "live run":
        client.delete_run(bench.run_of(bench.second))
    elif what == "target run":
        client.delete_run(bench.run_of(bench.first))
    elif what == "live version":
        client.delete_model_version(bench.model, bench.second)
    elif what == "target version":
        client.delete_model_version(bench.model, bench.first)
    elif what == "audit run":
        client.delete_run(bench.audit_run())
    elif what == "target files":
        wanted = Registry(bench.shop.mlflow).tags(bench.model, bench.first)["policy_sha256"]
        found = [f for f in bench.shop.artifacts.rglob("policy.json") if sha256(f.read_bytes()).hexdigest() == wanted]
        for file in found:
            file.unlink()
        assert found
    elif what == "experiment":
        (experiment,) = client.search_experiments(filter_string=f"name = '{bench.model}'")
        client.delete_experiment(experiment.experiment_id)
    else:
        client.delete_registered_model(bench.model)


@pytest.mark.parametrize(
    ("what", "stage", "noted"),
    [
        ("live run", "browsing", "tags of the run of version"),
        ("target run", "browsing", "tags of the run of version"),
        ("live version", "browsing", "tags of version"),
        ("audit run", "browsing", "it was restored"),
        ("target files", "browsing", ""),
        ("experiment", "checkout", "it was restored"),
    ],
)
def test_what_was_deleted_in_mlflow_stops_no_rollback(
    bench: Callable[[str], Bench], what: str, stage: str, noted: str
) -> None:
    one = bench(stage)
    lines = len(Registry(one.shop.mlflow).audit(one.model))
    delete(one, what)
    said = one.back("--yes")
    assert f"version {one.second} → version {one.first}" in said
    assert noted in said
    one.sync.round()
    assert one.decides() == one.first
    assert "→ what is learned live" in one.back("--to", "learned")
    one.sync.round()
    assert one.decides() == ""
    audit = Registry(one.shop.mlflow).audit(one.model)
    assert [(m.kind, m.version, m.why) for m in audit[lines:]] == [
        ("rollback", one.first, "refunds rose"),
        ("rollback", "", "refunds rose"),
    ]
    assert one.audit_run()  # where people look for it


@pytest.mark.parametrize(("what", "stage"), [("target version", "retention"), ("model", "onboarding")])
def test_the_service_goes_back_by_itself_to_what_mlflow_has_lost(
    bench: Callable[[str], Bench], what: str, stage: str
) -> None:
    one = bench(stage)
    delete(one, what)
    refused = one.shop.run("rollback", "travel", stage, *WHY, "--yes")
    assert refused.exit_code == 1
    assert what == "model" or "give --url" in str(refused.exception)
    assert one.decides() == one.second
    said = one.back("--yes", "--url", one.shop.url)
    assert f"version {one.second} → version {one.first}, said to be by ben" in said
    assert "note: MLflow:" in said
    assert one.decides() == one.first
    one.sync.round()
    assert one.decides() == one.first  # the registry is never brought back over the ledger
    one.back("--to", "learned", "--url", one.shop.url)
    assert one.decides() == ""


def test_without_mlflow_the_service_goes_back_at_once_and_the_registry_is_told_when_it_is_back(
    bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench("cart")
    lines = len(Registry(one.shop.mlflow).audit(one.model))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(
        "journey_bandit.registry.rollback.WAITS",
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )
    with black_hole() as nowhere:
        said = one.back("--url", one.shop.url, "--mlflow", nowhere)
    assert "registry sync` goes on trying" in said
    assert one.decides() == one.first
    (release,) = [r for r in one.shop.get("/v1/releases")["releases"] if r["stage"] == "cart"][-1:]
    assert (release["kind"], release["approved_by"], release["reason"]) == ("rollback", "ben", "refunds rose")
    assert len(Registry(one.shop.mlflow).audit(one.model)) == lines
    one.sync.round()
    assert one.decides() == one.first
    told = Registry(one.shop.mlflow).audit(one.model)
    assert [(m.kind, m.version, m.by, m.why) for m in told[lines:]] == [("rollback", one.first, "ben", "refunds rose")]
    assert told[-1].sha256 == release["sha256"]
    assert Registry(one.shop.mlflow).standing(one.model).serves == told[-1]
    one.sync.round()
    assert len(Registry(one.shop.mlflow).audit(one.model)) == lines + 1


def test_why_it_was_rolled_back_is_a_tag_of_the_version_that_was_left(bench: Callable[[str], Bench]) -> None:
    one = bench("cart")
    one.back("--yes")
    registry = Registry(one.shop.mlflow)
    left, back = registry.tags(one.model, one.second), registry.tags(one.model, one.first)
    assert (left["review"], left["rolled_back_because"], left["rolled_back_by"]) == (
        "rolled back",
        "refunds rose",
        "said to be ben",
    )
    assert (back["review"], back["reason"], back["approved_by"]) == (
        "approved",
        f"approved {one.first}",
        "said to be ana",
    )
    page = one.client.get_registered_model(one.model).description
    assert f", said to be by ana: approved {one.first}. Version {one.second} was rolled back at " in page
    assert ", said to be by ben, because: refunds rose" in page
    assert page.startswith("**Live as of 20")


def test_going_back_to_a_version_worse_than_no_nudge_says_so_and_asks(bench: Callable[[str], Bench]) -> None:
    one = bench("cart")
    for name, value in (("net_gain", -0.4), ("net_low", -0.5), ("net_high", -0.3)):
        one.client.log_metric(one.run_of(one.first), name, value)
    words = ("rollback", "travel", "cart", *WHY)
    refused = one.shop.run(*words)
    assert refused.exit_code == 1
    assert "worse than no nudge, -0.40 per decision net of costs [-0.50, -0.30]" in refused.output
    assert "--to none shows nothing to anybody" in refused.output
    assert "--yes" in str(refused.exception)
    one.sync.round()
    assert one.decides() == one.second
    assert one.shop.run(*words, typed="n\n").exit_code == 1
    assert one.shop.run(*words, typed="y\n").exit_code == 0
    one.sync.round()
    assert one.decides() == one.first
    assert "worse" not in one.back("--to", "none")
    one.sync.round()
    assert one.decides() == "none"
    one.back("--to", "learned")
    one.sync.round()


@pytest.mark.parametrize("by_service", [True, False])
def test_no_nudge_for_anybody_is_one_command_with_the_service_or_without(
    bench: Callable[[str], Bench], by_service: bool
) -> None:
    """From the next decision on no nudge has probability 1, the registry and the ledger agree on it, and what was
    approved before can be approved again.
    """
    one = bench("cart")
    said = one.back("--to", "none", *(("--url", one.shop.url) if by_service else ()))
    assert f"version {one.second} → no nudge for anybody" in said
    one.sync.round()
    for price in (30.0, 420.0, 2900.0):
        made = one.shop.ask(price=price)
        assert (made["nudge"]["id"], made["propensity"], made["release"]["version"]) == ("none", 1.0, "none")
        assert all(p == 0.0 for nudge, p in made["propensities"].items() if nudge != "none")
    registry = Registry(one.shop.mlflow)
    standing = registry.standing(one.model)
    assert (standing.champion, standing.refused) == (None, None)
    assert standing.serves is not None
    assert standing.serves.version == "none"
    releases = len(one.shop.get("/v1/releases")["releases"])
    one.sync.round()
    assert len(one.shop.get("/v1/releases")["releases"]) == releases, "brought once"
    assert "no nudge for anybody" in one.client.get_registered_model(one.model).description
    assert "no nudge" in one.shop.run("registry", "audit", "travel", "cart").output  # its table is folded
    assert one._published("uniform"), "a review does without a champion"
    again = ("--why", "mended", "--override", "test", "--who", "ana")
    one.shop.ok("promote", "travel", "cart", one.second, *again)
    one.sync.round()
    assert one.decides() == one.second
    receipts = one.shop.run("rebuild", "--store", one.shop.store, "--verify", "--receipts", "40", "--salt", SALT)
    assert "receipts: 0 of 40 differ" in receipts.output
    one.back("--to", "learned")
    one.sync.round()


def test_an_experiment_that_was_deleted_keeps_nobody_from_publishing(bench: Callable[[str], Bench]) -> None:
    one = bench("checkout")
    delete(one, "experiment")
    assert int(one._published("uniform")) > int(one.second)
    (experiment,) = one.client.search_experiments(filter_string=f"name = '{one.model}'")
    assert experiment.lifecycle_stage == "active"
