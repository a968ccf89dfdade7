"""An assistant approves a version: the promotion rule is asked now, the service checks the key, MLflow is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
ONE, OTHER = "linear:alpha=0.9", "linear:alpha=0.8"  # versions that no other test of this shop publishes
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
    version, registry = published(OTHER), Registry(shop.mlflow)
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
    (line,) = [row for row in seen.splitlines() if row.startswith(f'| "{version}" | "approved" | ')]
    assert "no nudge" in line


def test_nothing_is_approved_with_a_key_that_may_not_release(
    shop: Shop, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, before = published(ONE), (Registry(shop.mlflow).standing(MODEL), shop.get("/v1/releases"))
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))

    def refused(*_: object) -> None:
        raise RemoteError("PUT /v1/policies/cart/release: 403 this route needs the scope 'admin'")

    with monkeypatch.context() as patched:
        patched.setattr(AdminClient, "check_may_release", refused)
        with pytest.raises(RemoteError, match="403"):
            tools(shop).approve(STAGE, version, "r")
    with AdminClient(shop.url) as service:
        service.check_may_release(STAGE)  # this one may, and asking changes nothing
    assert (Registry(shop.mlflow).standing(MODEL), shop.get("/v1/releases")) == before


def test_a_sync_that_runs_meanwhile_does_not_bring_the_version_before_again(
    shop: Shop, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of it between any two steps of the approval that change something."""
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))
    before, after = published(ONE), published(OTHER)
    tools(shop).approve(STAGE, before, "first")
    known, running = len(shop.get("/v1/releases")["releases"]), list[bool]()
    release, move = AdminClient.release, Registry.move

    def round_after(done: Any) -> Any:
        if not running:
            running.append(True)
            with AdminClient(shop.url) as service:
                RegistrySync(
                    Registry(shop.mlflow), service, "", RunQueue(tmp_path), every=1.0, publish_every=0.0
                ).round()
            running.clear()
        return done

    monkeypatch.setattr(AdminClient, "release", lambda *given: round_after(release(*given)))
    monkeypatch.setattr(Registry, "move", lambda *given: round_after(move(*given)))
    assert f'Version "{after}" decides at "cart" now' in tools(shop).approve(STAGE, after, "second")
    assert [one["version"] for one in shop.get("/v1/releases")["releases"][known:]] == [after]
    assert shop.release() == after


def test_what_cannot_be_read_stops_an_approval_before_anything_changed(
    shop: Shop, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, before = published(ONE), (Registry(shop.mlflow).standing(MODEL), shop.get("/v1/releases"))
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))

    def silent(*_: object) -> None:
        raise RemoteError("MLflow is silent")

    monkeypatch.setattr(Registry, "metrics", silent)
    with pytest.raises(RemoteError, match="MLflow is silent"):
        tools(shop).approve(STAGE, version, "r")
    assert (Registry(shop.mlflow).standing(MODEL), shop.get("/v1/releases")) == before


def test_what_fails_after_the_approval_is_told_with_it(
    shop: Shop, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = published(ONE)
    monkeypatch.setattr(promote, "asked_now", lambda *_: PromotionVerdict("promote", ()))

    def silent(*_: object) -> None:
        raise RemoteError("no answer | in time")

    with monkeypatch.context() as patched:
        patched.setattr(AdminClient, "release", silent)
        said = tools(shop).approve(STAGE, version, "r")
    assert f'Version "{version}" is approved, but the service did not say that it decides: "no answer ' in said
    assert "answer | in" not in said
    with AdminClient(shop.url) as service:
        RegistrySync(Registry(shop.mlflow), service, "", RunQueue(tmp_path), every=1.0, publish_every=0.0).round()
    assert shop.release() == version
