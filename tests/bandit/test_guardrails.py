"""Which nudges may be shown: a claim only with true evidence, lists by known names, and no nudge always."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest
from bandit.guardrails import ClaimEvidence, Eligibility, eligible

NOW = 1_700_000_000_000_000
NUDGES = ("reminder", "discount", "low_stock", "countdown")


def allowed(
    stage: Stage,
    proof: ClaimEvidence = ClaimEvidence(),  # noqa: B008  (a frozen value)
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    *,
    holdout: bool = False,
    refused: dict[str, str] | None = None,
) -> Eligibility:
    return eligible(
        stage, holdout=holdout, proof=proof, include=include, exclude=exclude or [], refused=refused or {}, now=NOW
    )


def test_a_nudge_is_eligible_exactly_when_listed_proven_and_not_held_out(make_stage: Callable[..., Stage]) -> None:
    """20,000 random requests against the rules written a second time; above all, no claim without true evidence."""
    stage, rng = make_stage(), random.Random(0)
    stocks = (None, -(10**9), 10**9, *range(-2, 9))
    deadlines = (None, 0, 2 * NOW, *range(NOW - 2, NOW + 3))
    for _ in range(20_000):
        proof = ClaimEvidence(rng.choice(stocks), rng.choice(deadlines))
        include = rng.choice([None, rng.sample(NUDGES, rng.randrange(5))])
        exclude = rng.sample(NUDGES, rng.choice([0, 0, 1, 2]))
        holdout = rng.random() < 0.1
        mask, excluded = allowed(stage, proof, include, exclude, holdout=holdout)
        proven = {
            "reminder": True,
            "discount": True,
            "low_stock": proof.stock in range(1, 6),
            "countdown": proof.deadline is not None and proof.deadline > NOW,
        }
        may = {
            name: proven[name] and not holdout and (include is None or name in include) and name not in exclude
            for name in NUDGES
        }
        assert mask.tolist() == [True, *may.values()]
        assert set(excluded) == {name for name, yes in may.items() if not yes}


@pytest.mark.parametrize(
    ("stock", "reason"),
    [
        (None, "no evidence: send evidence.stock, the units left"),
        (0, "not true: stock is 0, the claim needs 1 to 5"),
        (1, None),
        (5, None),
        (6, "not true: stock is 6, the claim needs 1 to 5"),
        (-1, "not true: stock is -1, the claim needs 1 to 5"),
    ],
)
def test_scarcity_needs_a_stock_that_is_scarce(
    make_stage: Callable[..., Stage], stock: int | None, reason: str | None
) -> None:
    assert allowed(make_stage(), ClaimEvidence(stock=stock)).excluded.get("low_stock") == reason


@pytest.mark.parametrize(
    ("deadline", "reason"),
    [
        (None, "no evidence: send evidence.deadline, when the offer ends"),
        (NOW - 1, "not true: the deadline has passed"),
        (NOW, "not true: the deadline has passed"),
        (NOW + 1, None),
    ],
)
def test_urgency_needs_a_deadline_to_come(
    make_stage: Callable[..., Stage], deadline: int | None, reason: str | None
) -> None:
    assert allowed(make_stage(), ClaimEvidence(deadline=deadline)).excluded.get("countdown") == reason


def test_one_kind_of_evidence_does_not_prove_another(make_stage: Callable[..., Stage]) -> None:
    assert "countdown" in allowed(make_stage(), ClaimEvidence(stock=3)).excluded
    assert "low_stock" in allowed(make_stage(), ClaimEvidence(deadline=NOW + 1)).excluded


def test_every_exclusion_says_why(make_stage: Callable[..., Stage]) -> None:
    excluded = allowed(make_stage(), include=["reminder", "discount"], exclude=["discount"]).excluded
    assert excluded == {
        "discount": "in the request's exclude list",
        "low_stock": "not in the request's include list",
        "countdown": "not in the request's include list",
    }


def test_an_empty_include_list_leaves_only_no_nudge(make_stage: Callable[..., Stage]) -> None:
    assert allowed(make_stage(), include=[]).mask.tolist() == [True, False, False, False, False]


def test_no_nudge_stays_eligible_when_it_is_not_included(make_stage: Callable[..., Stage]) -> None:
    assert allowed(make_stage(), include=["reminder"]).mask.tolist() == [True, True, False, False, False]
    assert allowed(make_stage(), include=["none"]).mask.tolist() == [True, False, False, False, False]


def test_no_nudge_cannot_be_excluded(make_stage: Callable[..., Stage]) -> None:
    with pytest.raises(InvalidRequest, match="no nudge cannot be excluded") as caught:
        allowed(make_stage(), exclude=["none"])
    assert [p.field for p in caught.value.problems] == ["exclude"]


def test_unknown_names_are_refused_all_at_once_with_the_closest_known(make_stage: Callable[..., Stage]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        allowed(make_stage(), include=["reminder", "discuont"], exclude=["x", "none"])
    found = {p.field: p for p in caught.value.problems}
    assert list(found) == ["include[1]", "exclude[0]", "exclude"]
    assert found["include[1]"].problem == "this stage has no nudge 'discuont'"
    known = "known: countdown, discount, low_stock, none, reminder"
    assert found["include[1]"].fix == f"did you mean `discount`? {known}"
    assert found["exclude[0]"].fix == known


def test_the_holdout_gets_no_nudge_whatever_it_asks_for(make_stage: Callable[..., Stage]) -> None:
    mask, excluded = allowed(make_stage(), ClaimEvidence(3, NOW + 1), include=list(NUDGES), holdout=True)
    assert np.flatnonzero(mask).tolist() == [0]
    assert set(excluded.values()) == {"holdout: this user is in the control group"}


def test_an_operators_pause_is_the_reason_whatever_the_request_lacks(make_stage: Callable[..., Stage]) -> None:
    said = "paused by ana: refunds rose"
    found = allowed(make_stage(), exclude=["low_stock"], include=["low_stock"], refused={"low_stock": said})
    assert found.excluded["low_stock"] == said
    assert allowed(make_stage(), refused={"countdown": said}).excluded["countdown"] == said


def test_what_is_refused_from_outside_is_excluded_with_that_reason(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    nudge = next(name for name, n in stage.nudges.items() if n.evidence is None)
    free, refused = allowed(stage), allowed(stage, refused={nudge: "budget: empty"})
    assert refused.excluded == {**free.excluded, nudge: "budget: empty"}
    assert free.mask[stage.arms.index(nudge)]
    assert not refused.mask[stage.arms.index(nudge)]
