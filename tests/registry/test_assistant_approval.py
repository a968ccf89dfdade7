"""An assistant approves a version: the promotion rule is asked now, the service checks the key, MLflow is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bandit.errors import InvalidRequest, NotFound, RemoteError
from experiments.promotion.verdict import PromotionVerdict
from journey_bandit.registry import promote
from journey_bandit.registry.registry_sync import RegistrySync
from journey_bandit.registry.run_queue import RunQueue
from journey_bandit.service.service_client import AdminClient
from tests.registry.conftest import MODEL, STAGE, Shop

pytest.importorskip("mcp", reason="the extra mcp is not installed: pip install 'journey-bandit[mcp]'")

from experiments.mlflow.registry import Registry
from journey_bandit.assistants.change_tools import ChangeTools
from journey_bandit.assistants.read_tools import ReadTools

Published = Callable[[str], str]
pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")


def tools(shop: Shop) -> ChangeTools:
    return ChangeTools(shop.url, "", "ana", shop.store, shop.mlflow)


def test_a_version_that_the_rule_does_not_promote_is_refused(shop: Shop, published: Published) -> None:
    before = shop.release()
    with pytest.raises(InvalidRequest, match=r"version: the promotion rule says (hold|reject): .* → wait for more"):
        tools(shop).approve(STAGE, published(""), "looks good")
    with pytest.raises(NotFound, match="version: travel-cart has no version 99"):
        tools(shop).approve(STAGE, "99", "looks good")
    assert shop.release() == before


def test_what_the_rule_promotes_decides_and_both_ledgers_say_for_whom(
    shop: Shop, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, registry = published("hierarchical"), Registry(shop.mlflow)
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))
    said = tools(shop).approve(STAGE, version, "it earns more")
    assert f'Version "{version}" decides at "cart" now' in said
    assert "no nudge" in said.partition(". ")[0]
    assert shop.release() == version
    move = registry.standing(MODEL).serves
    assert move is not None
    assert (move.version, move.by, move.why, move.gate) == (version, "the assistant of ana", "it earns more", "promote")
    kept = shop.get("/v1/releases")["releases"][-1]
    assert (kept["version"], kept["approved_by"], kept["reason"]) == (version, "the assistant of ana", "it earns more")
    with AdminClient(shop.url) as service:
        RegistrySync(registry, service, "", RunQueue(tmp_path), every=1.0, publish_every=0.0).round()
    assert shop.get("/v1/releases")["releases"][-1] == kept  # the sync finds it in force
    seen = ReadTools(shop.url, "", shop.store, shop.mlflow).review(STAGE)
    assert f'| {kept["number"]} | promote | "{version}" | "the assistant of ana" |' in seen
    (line,) = [row for row in seen.splitlines() if row.startswith(f'| "{version}" | approved | ')]
    assert "no nudge" in line


def test_mlflow_is_not_told_what_the_service_refused(
    shop: Shop, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Registry(shop.mlflow).standing(MODEL)
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))

    def refused(*_: object, **__: object) -> None:
        raise RemoteError("PUT /v1/policies/cart/release: 403 The key may not do this")

    monkeypatch.setattr(AdminClient, "release", refused)
    with pytest.raises(RemoteError, match="403"):
        tools(shop).approve(STAGE, published("uniform"), "r")
    assert Registry(shop.mlflow).standing(MODEL) == before
