"""A wider range of a feature: what was learned is encoded again from the ledger, and what was decided stays proven."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.ledger import audit, catalogue_changes, statistics_store, warm_start
from api.ledger.candidates import candidate
from api.ledger.warm_start import WarmStartRow
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.belief import X_GRID
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import InvalidRequest, LedgerMismatch
from bandit.features import encode, schema
from bandit.learning import pending, settlement
from bandit.learning.recoding import recoded
from bandit.learning.settlement import contribution
from bandit.policies import Linear
from bandit.records import Decision, MaturedDecision
from bandit.snapshot import to_zip
from journey_bandit.evaluation import log_sources
from journey_bandit.registry.shadows import score
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.policy_evidence import gather

Working = Callable[..., AbstractContextManager[Any]]

APP = """
app = "shoes"
currency = "EUR"
[stages.cart]
policy = {policy}
reward = {reward}
[stages.cart.features]
price = {{ type = "number", min = 0, max = {top}, default = 20{scale} }}
mobile = {{ type = "boolean", default = true }}
[stages.cart.nudges]
mail = {{ type = "reminder", format = "mail" }}
push = {{ type = "reminder", format = "push" }}
[stages.shelf]
policy = {policy}
reward = {reward}
[stages.shelf.features]
fresh = {{ type = "boolean", default = false }}
[stages.shelf.nudges]
mail = {{ type = "reminder", format = "mail" }}
"""
BINARY = '{ kind = "binary", window = "1h", value = 10.0, delay = "20m" }'
REVENUE = '{ kind = "revenue", window = "1h", max = 50.0 }'
KINDS = {
    "linear": ('{ name = "linear", prior_mean = 0.2 }', BINARY, ""),
    "hierarchical": ('{ name = "hierarchical", prior_mean = 0.2 }', BINARY, ""),
    "logistic": ('{ name = "logistic" }', BINARY, ""),
    "revenue": ('{ name = "hierarchical" }', REVENUE, ""),
    "log": ('{ name = "linear", prior_mean = 0.2 }', BINARY, ', scale = "log"'),
}


def shoes(kind: str = "linear", top: float = 100.0) -> Catalogue:
    policy, reward, scale = KINDS[kind]
    return parse(APP.format(policy=policy, reward=reward, scale=scale, top=top))


def context(n: int) -> dict[str, Any]:
    """Of person number n; one in seven says nothing, and one in five comes to the shelf."""
    if n % 5 == 0 or n % 7 == 0:
        return {}
    return {"price": (37 * n) % 101, "mobile": n % 3 == 0}


class Story:
    """People who come to a service whose catalogue changes between its starts."""

    def __init__(self, store: Store, working: Working, later: Callable[[float], int]):
        self.store, self._working, self._later = store, working, later
        self._n = 0

    def people(self, catalogue: Catalogue, count: int, *, leave_open: int = 0) -> None:
        """So many come, half of them buy; the last `leave_open` of them are still open at the end."""
        with self._working(self.store, catalogue) as desk:
            for i in range(count):
                self._n += 1
                desk.ask(self._n, ("cart", "shelf")[self._n % 5 == 0], user=f"u{self._n}", **context(self._n))
                if self._n % 2:
                    desk.report(self._n, "reward", 1.0)
                if i == count - leave_open - 1:
                    self._later(3600)
                    desk.learn()
            if not leave_open:
                self._later(3600)
                desk.learn()

    def proven(self) -> None:
        """Every belief follows from the ledger, every decision can be recomputed."""
        assert [r.equal for r in audit.rebuild(self.store, audit.stages(self.store))] == [True, True]
        salt = audit.salt_of(self.store, "salt")
        found = list(self.store.decisions())
        assert len(found) == self._n
        assert [audit.differences(self.store, one, salt) for one in found[::3]] == [[]] * len(found[::3])


@pytest.fixture
def story(store: Store, working: Working, later: Callable[[float], int]) -> Story:
    return Story(store, working, later)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_goes_on_under_a_wider_range_and_everything_stays_proven(story: Story, kind: str) -> None:
    """Decisions of the narrow range settle before the change and after it; then the range widens once more."""
    story.people(shoes(kind), 40, leave_open=9)
    before = statistics_store.load(story.store, shoes(kind).stages)["cart"].epochs[-1]
    story.people(shoes(kind, 250.0), 0)
    after = statistics_store.load(story.store, shoes(kind, 250.0).stages)["cart"].epochs[-1]
    assert after.n.sum() >= before.n.sum() > 0
    story.people(shoes(kind, 250.0), 20, leave_open=4)
    story.people(shoes(kind, 1000.0), 20)
    story.proven()
    learned = statistics_store.load(story.store, shoes(kind, 1000.0).stages)["cart"].epochs[-1]
    assert learned.n[:3].sum() == 64, "every settled decision of the cart counts"


def test_it_is_what_would_have_been_learned_under_the_wider_range(story: Story) -> None:
    """Against sums of the values themselves, encoded under the wider range: half a step of x and its rounding apart."""
    story.people(shoes(), 60)
    story.people(shoes("linear", 400.0), 0)
    wide = shoes("linear", 400.0).stages["cart"]
    got = statistics_store.load(story.store, {"cart": wide})["cart"].epochs[-1]
    found = [one for one in story.store.decisions("cart") if one.settlement]
    x = np.array([encode(schema(wide.features), context(one.decision.id.int)).x for one in found])
    direct = contribution(wide, [one.settlement for one in found if one.settlement], x)
    assert np.array_equal(got.n, direct.n)
    assert np.array_equal(got.reward, direct.reward)
    most = 2.0 / X_GRID * got.precision[:, :1, :1]
    assert (np.abs(got.precision - direct.precision) <= most).all()


def test_the_change_is_announced_before_it_happens(story: Story) -> None:
    story.people(shoes(), 10, leave_open=2)
    fates = {fate.stage: fate for fate in catalogue_changes.fates(story.store, shoes("linear", 250.0), "salt")}
    assert (fates["cart"].what, fates["shelf"].what) == ("recoded", "kept")
    assert fates["cart"].why == (
        "7 learned decision(s); encoded again, as they would be under the wider range of price"
    )
    story.people(shoes("linear", 250.0), 0)
    assert {fate.what for fate in catalogue_changes.fates(story.store, shoes("linear", 250.0), "salt")} == {"kept"}
    with pytest.raises(LedgerMismatch, match="declare schema = 2"):
        story.people(shoes(), 0)


def test_a_change_that_is_cut_off_leaves_the_ledger_as_it_was(
    working: Working, later: Callable[[float], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(tmp_path / "l.db")) as store:
        story = Story(store, working, later)
        story.people(shoes(), 20)

        def cut(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(audit, "replace", cut)
            with pytest.raises(KeyboardInterrupt):
                audit.claim(store, shoes("linear", 250.0), "salt")
        story.people(shoes(), 10)
        story.proven()
        story.people(shoes("linear", 250.0), 10)
        story.proven()


def test_what_a_warm_start_brought_cannot_be_encoded_again(story: Story) -> None:
    story.people(shoes(), 5)
    stage = shoes().stages["cart"]
    log = warm_start.checked("cart", stage, [WarmStartRow({"price": 10}, "mail", 1.0)])
    warm_start.begin(story.store, "cart", stage, log, weight=1.0, digest="d")
    with pytest.raises(LedgerMismatch, match="declare schema = 2"):
        story.people(shoes("linear", 250.0), 0)


def test_a_candidate_of_another_policy_learns_all_rows_as_the_wider_range_encodes_them(story: Story) -> None:
    story.people(shoes("logistic"), 40)
    story.people(shoes("logistic", 250.0), 20)
    spec, through = audit.stages(story.store)["cart"], story.store.last().settlement
    other = msgspec.structs.replace(spec, policy=Linear(prior_mean=0.2))
    made = candidate(story.store, "cart", through, other).belief
    found = [one for one in story.store.decisions("cart") if one.settlement]
    for a, arm in enumerate(spec.arms):
        x = [encode(schema(spec.features), context(f.decision.id.int)).x for f in found if f.decision.arm == arm]
        share = made.precision[a][0] / made.precision[a][0, 0]
        assert np.allclose(share, np.mean(x, axis=0), atol=2.0 / X_GRID)


def test_a_log_for_evaluation_holds_one_encoding_and_refuses_snapshots_of_another(
    working: Working, later: Callable[[float], int], tmp_path: Path
) -> None:
    path = tmp_path / "l.db"
    with closing(SqliteStore(path)) as store:
        story = Story(store, working, later)
        story.people(shoes(), 30)
        old = candidate(store, "cart", store.last().settlement)
        story.people(shoes("linear", 250.0), 10)
        new = candidate(store, "cart", store.last().settlement)
        wide = shoes("linear", 250.0).stages["cart"]
        made = [context(one.decision.id.int) for one in store.decisions("cart")]
    log = ledger_log.open_log(str(path), "cart")
    x = np.concatenate([rounds.x for rounds in log.source()() if rounds.x is not None])
    assert np.abs(x - np.array([encode(schema(wide.features), one).x for one in made])).max() <= 1.0 / X_GRID
    log.check(new)
    with pytest.raises(InvalidRequest, match="other features, or other ranges"):
        log.check(old)
    archive = tmp_path / "old.zip"
    archive.write_bytes(to_zip(old))
    asked = log_sources.RequestedPolicies([str(archive)], [])
    with pytest.raises(InvalidRequest, match="other features, or other ranges"):
        log_sources.of_ledger(str(path), "cart", asked, net=False, segment="", elsewhere=False)
    with pytest.raises(InvalidRequest, match="other features, or other ranges"):
        gather(str(path), "cart", old)


def test_a_shadow_is_scored_on_contexts_as_it_encodes_them(
    working: Working, later: Callable[[float], int], tmp_path: Path
) -> None:
    path = tmp_path / "l.db"
    with closing(SqliteStore(path)) as store:
        story = Story(store, working, later)
        story.people(shoes(), 30)
        story.people(shoes("linear", 250.0), 10)
        challenger = msgspec.structs.replace(candidate(store, "cart", store.last().settlement), version=0)
        made = [one.decision for one in store.decisions("cart") if not one.decision.holdout]
        specs = store.specs()
    live, wide = engine.prepare(challenger), challenger.stage_spec

    def moved(x: Callable[[Decision], Any]) -> float:
        """Mean probability that the challenger puts elsewhere, where it reads a decision's context as `x` says."""
        shares = [
            0.5 * np.abs(engine.choose(live, x(d), np.array([a not in d.excluded for a in wide.arms])).propensity
                         - d.propensity).sum()
            for d in made
        ]  # fmt: skip
        return float(np.mean(shares))

    found = score(str(path), "cart", "2", challenger)
    assert (found.n, found.failed) == (len(made), 0)
    assert found.moved == pytest.approx(moved(lambda d: recoded(d.x[None], specs[d.stage_digest], wide)[0]), abs=1e-12)
    assert abs(found.moved - moved(lambda d: d.x)) > 1e-6  # as they were encoded it would be another answer


def test_open_decisions_and_new_sites_read_the_context_as_the_live_policy_encodes_it(story: Story) -> None:
    """A logistic site depends on what is believed at x; an open decision counts at x."""
    narrow, wide = (shoes("logistic", top).stages["cart"] for top in (100.0, 250.0))
    story.people(shoes("logistic"), 30, leave_open=4)
    audit.claim(story.store, shoes("logistic", 250.0), "salt")
    live = candidate(story.store, "cart", story.store.last().settlement)
    found = [one for one in story.store.decisions("cart") if one.settlement is None and one.decision.x[1] > -0.5]
    assert found
    for one in found:
        x = recoded(one.decision.x[None], narrow, wide)
        assert not np.array_equal(x[0], one.decision.x)
        columns = pending.OpenDecisionTable(wide, x.shape[1])
        columns.put([pending.KnownDecision(one.seq, one.decision)], {one.decision.stage_digest: narrow})
        assert np.array_equal(columns.rows().x, x)
        again = msgspec.structs.replace(one.decision, x=x[0])
        (mine,) = settlement.settle(narrow, [MaturedDecision(one.seq, one.decision, ())], 0, live=live)
        (same,) = settlement.settle(wide, [MaturedDecision(one.seq, again, ())], 0, live=live)
        (unlike,) = settlement.settle(wide, [MaturedDecision(one.seq, one.decision, ())], 0, live=live)
        assert (mine.tau, mine.nu) == (same.tau, same.nu) != (unlike.tau, unlike.nu)
