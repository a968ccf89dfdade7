"""A candidate is judged on live traffic: no verdict before the declared number, the gate waits for it, and the ledger
proves every decision of both halves.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.mlflow.registry import Registry
from journey_bandit.main import group
from journey_bandit.registry.registry_sync import RegistrySync
from journey_bandit.registry.run_queue import RunQueue
from journey_bandit.service.service_client import AdminClient
from tests.registry.conftest import MODEL, SALT, Shop

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")

DECLARED = 600


def test_a_judged_candidate_from_judge_to_rollback(shop: Shop, published: Callable[[str], str], tmp_path: Path) -> None:
    version, words = published("uniform"), ("--why", "is it better?", "--who", "ana")
    refused = shop.run("judge", "travel", "cart", version, "--decisions", "50", *words, "--url", shop.url)
    assert refused.exit_code == 2
    assert "--decisions" in refused.output
    said = shop.ok("judge", "travel", "cart", version, "--decisions", str(DECLARED), *words, "--url", shop.url)
    assert f"half of every decision at cart is version {version} now" in said
    ledger = ("--ledger", shop.store, "--stage", "cart")
    assert f"0 of {DECLARED} decisions: no verdict before that" in shop.ok("verdict", *ledger)

    with AdminClient(shop.url) as service:  # the sync leaves it alone
        RegistrySync(Registry(shop.mlflow), service, "", RunQueue(tmp_path), every=1.0, publish_every=0.0).round()
    assert shop.release() == version

    shop.people(90, 71)
    early = json.loads(shop.ok("verdict", *ledger, "--json"))
    assert 60 < early["made"] == early["known"] < DECLARED
    assert (early["final"], early["lift"]["interval"], early["lift"]["value"]) == (False, [None, None], None)
    assert early["lift"]["sequence"][0] < early["lift"]["sequence"][1]
    assert early["verdict"]["decision"] == "hold"
    stopped = shop.run("promote", "travel", "cart", version, *words, "--store", shop.store)
    assert stopped.exit_code == 1
    assert f"of {DECLARED} decisions: no verdict before that" in str(stopped.exception)
    assert Registry(shop.mlflow).tags(MODEL, version)["gate"] == "hold"

    shop.people(400, 72)  # that it is worse is seen at any time; that it is better is not said before
    assert json.loads(shop.ok("verdict", *ledger, "--json"))["verdict"]["decision"] == "reject"
    shop.people(400, 74)
    final = json.loads(shop.ok("verdict", *ledger, "--json"))
    assert (final["final"], final["made"], final["known"]) == (True, DECLARED, DECLARED)
    low, high = final["lift"]["interval"]
    assert low < final["lift"]["value"] < high
    assert "sequence" not in final["lift"]
    assert final["saved"] is not None
    shop.people(200, 73)
    assert json.loads(shop.ok("verdict", *ledger, "--json")) == final  # what comes later changes nothing
    assert "the verdict is final" in shop.ok("verdict", *ledger)

    shop.ok("rollback", "travel", "cart", "--why", "enough seen", "--who", "ben", "--url", shop.url, "--yes")
    assert shop.release() != version
    assert json.loads(shop.ok("verdict", *ledger, "--json")) == final
    proof = ("rebuild", "--store", shop.store, "--verify", "--receipts", "60", "--salt", SALT)
    done = CliRunner().invoke(group, list(proof), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "receipts: 0 of 60 differ" in done.output
    missing = shop.run("verdict", "--ledger", shop.store, "--stage", "search")
    assert missing.exit_code == 1
    shop.ok("rollback", "travel", "cart", "--why", "clean up", "--to", "learned", "--url", shop.url)
