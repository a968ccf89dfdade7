"""A decision is a pure function of its arguments, and what it logs is true of how it was drawn."""

import copy
import math
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.engine import (
    DecisionQuery,
    PreparedPolicy,
    decide,
    in_holdout,
    prepare,
    randomization_unit,
    recompute,
    unit_from_group,
    user_hash,
)
from bandit.errors import InvalidRequest
from bandit.guardrails import ClaimEvidence
from bandit.policies import AnyPolicy, Beta, Fixed, Linear, Uniform
from bandit.propensity import draw
from bandit.records import Decision
from bandit.snapshot import Snapshot, from_zip, to_zip

SALT = b"a salt of the tests"
NOW = 1_700_000_000_000_000
POLICIES = [Linear(), Beta(), Uniform(), Fixed("reminder")]
Go = Callable[..., PreparedPolicy]


@pytest.fixture(scope="session")
def live(make_stage: Callable[..., Stage], make_belief: Callable[..., Belief]) -> Go:
    """A stage with any field replaced, that has learned from 300 decisions."""
    belief = make_belief(5, 11, 300, 0)
    return lambda **fields: prepare(Snapshot("shop", "checkout", make_stage(**fields), 300, belief))


def ask(number: int, user: str = "u1", **fields: Any) -> DecisionQuery:
    given: dict[str, Any] = {"id": uuid.UUID(int=number), "user_id": user, "context": {"seconds": 120}}
    return DecisionQuery(**(given | fields))


def bits(decision: Decision) -> dict[str, Any]:
    """Everything a decision holds, arrays by their bytes."""
    fields = msgspec.structs.asdict(decision)
    return {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in fields.items()}


def decided(live: PreparedPolicy, request: DecisionQuery) -> Decision:
    return decide(live, request, now=NOW, salt=SALT)


# -- the same again --------------------------------------------------------------------------------------------

asks = st.builds(
    ask,
    st.integers(0, 2**128 - 1),
    st.text(max_size=5),
    context=st.fixed_dictionaries(
        {}, optional={"seconds": st.none() | st.floats(-10, 1000), "returning": st.booleans(), "device": st.text()}
    ),
    proof=st.builds(ClaimEvidence, stock=st.none() | st.integers(0, 9), deadline=st.none() | st.just(NOW + 1)),
    exclude=st.lists(st.sampled_from(["reminder", "discount", "countdown"]), max_size=2),
)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
@given(request=asks)
def test_a_retry_and_a_recomputation_give_the_same_decision_to_the_bit(
    live: Go, policy: AnyPolicy, request: DecisionQuery
) -> None:
    """The recomputation knows only the ledger row, the salt, and the snapshot as it comes back from its bytes."""
    now = live(policy=policy, holdout=0.3)
    first = decided(now, request)
    assert bits(decided(now, request)) == bits(first)
    again = prepare(from_zip(to_zip(now.snapshot)))
    assert bits(recompute(again, first, SALT)) == bits(first)
    forged = msgspec.structs.replace(first, propensity=first.propensity + 1e-9, u=0.5, arm="?", mean=first.mean + 1)
    assert bits(recompute(again, forged, SALT)) == bits(first)


def test_the_draw_is_keyed_by_decision_stage_and_salt_and_by_nothing_else(live: Go) -> None:
    one, request = live(), ask(1)
    u = decided(one, request).u
    other_stage = one._replace(snapshot=msgspec.structs.replace(one.snapshot, stage="cart"))
    assert decided(one, msgspec.structs.replace(request, user_id="u2", context={}, exclude=["discount"])).u == u
    assert decide(one, request, now=NOW + 1, salt=SALT).u == u
    assert decided(one, ask(2)).u != u
    assert decided(other_stage, request).u != u
    assert decide(one, request, now=NOW, salt=b"other").u != u


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_deciding_changes_none_of_its_arguments(live: Go, policy: AnyPolicy) -> None:
    now, request = live(policy=policy), ask(1, include=["reminder", "discount"])
    for part in now.snapshot.belief:
        part.flags.writeable = False
    digest, before = now.snapshot.belief.digest(), copy.deepcopy(request)
    decision = decided(now, request)
    recompute(now, decision, SALT)
    assert request == before
    assert now.snapshot.belief.digest() == digest
    assert bits(decided(now, request)) == bits(decision)


# -- what is logged is true ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Linear(), Beta()], ids=lambda p: type(p).__name__)
def test_the_logged_propensity_is_the_frequency_of_draws(live: Go, policy: AnyPolicy) -> None:
    """One context; Hoeffding over 5 arms: false alarm ≤ 1e-6; detects any error ≥ 0.04 with probability 1 − 1e-6."""
    n, now = 20_500, live(policy=policy)
    decisions = [decided(now, ask(i, proof=ClaimEvidence(stock=3))) for i in range(n)]
    p = decisions[0].propensity
    assert all((d.propensity == p).all() for d in decisions)
    counts = {arm: sum(d.arm == arm for d in decisions) for arm in now.snapshot.stage_spec.arms}
    assert np.abs(np.array(list(counts.values())) / n - p).max() < math.sqrt(math.log(10 / 1e-6) / (2 * n)) < 0.02
    assert counts["countdown"] == p[4] == 0


@given(asks)
def test_final_propensities_are_a_distribution_with_the_floor(live: Go, request: DecisionQuery) -> None:
    decision = decided(now := live(floor=0.05, holdout=0.2), request)
    eligible = np.array([arm not in decision.excluded for arm in now.snapshot.stage_spec.arms])
    assert decision.propensity.sum() == pytest.approx(1.0, abs=1e-12)
    assert (decision.propensity[eligible] >= 0.05).all()
    assert (decision.propensity[~eligible] == 0.0).all()
    assert decision.arm not in decision.excluded
    assert decision.propensity[now.snapshot.stage_spec.arms.index(decision.arm)] > 0.0


def test_a_decision_says_what_it_was_made_of(live: Go) -> None:
    now = live(reward=msgspec.structs.replace(live().snapshot.stage_spec.reward, window="2h"))
    proof = ClaimEvidence(stock=9)
    decision = decided(now, ask(5, context={"seconds": 9999}, proof=proof, exclude=["discount"], request=b"digest"))
    assert (decision.id, decision.at, decision.stage, decision.settlement_version) == (
        uuid.UUID(int=5),
        NOW,
        "checkout",
        300,
    )
    assert (decision.stage_digest, decision.request) == (now.snapshot.stage_spec.digest(), b"digest")
    assert decision.expires == NOW + 7_200_000_000
    assert decision.evidence == {"stock": 9}
    assert decision.excluded == {
        "discount": "in the request's exclude list",
        "low_stock": "not true: stock is 9, the claim needs 1 to 5",
        "countdown": "no evidence: send evidence.deadline, when the offer ends",
    }
    assert decision.notes == (
        "seconds: 9999 is outside [0, 600], clipped to 600",
        "missing, declared defaults used: visits, returning, device",
    )


def test_the_window_can_be_scaled_but_never_to_nothing(live: Go) -> None:
    assert decide(live(), ask(1), now=NOW, salt=SALT, window_scale=1e-3).expires == NOW + 86_400_000
    assert decide(live(), ask(1), now=NOW, salt=SALT, window_scale=0.0).expires == NOW + 1


def test_a_request_that_cannot_be_used_is_refused_with_its_problems(live: Go) -> None:
    with pytest.raises(InvalidRequest, match=r"context\.device: 3 is not a text"):
        decided(live(), ask(1, context={"device": 3}))
    with pytest.raises(InvalidRequest, match=r"include\[0\]: this stage has no nudge 'x'"):
        decided(live(), ask(1, include=["x"]))


# -- the holdout -----------------------------------------------------------------------------------------------


def test_who_is_held_out_at_five_percent_is_held_out_at_ten() -> None:
    users = [f"user {i}" for i in range(20_000)]
    groups = [{u for u in users if in_holdout(randomization_unit(SALT, u), share)} for share in (0.0, 0.05, 0.1, 0.5)]
    assert groups[0] == set()
    assert groups[0] < groups[1] < groups[2] < groups[3]


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_holdout_has_its_share(share: float) -> None:
    """Hoeffding: false alarm ≤ 1e-6; detects any error ≥ 0.024 with probability 1 − 1e-6."""
    n = 50_000
    found = sum(in_holdout(randomization_unit(SALT, f"user {i}"), share) for i in range(n)) / n
    assert abs(found - share) < math.sqrt(math.log(2 / 1e-6) / (2 * n)) < 0.0121


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_the_holdout_always_gets_no_nudge(live: Go, policy: AnyPolicy) -> None:
    now = live(policy=policy, holdout=0.5)
    user = next(u for u in map(str, range(100)) if in_holdout(randomization_unit(SALT, u), 0.5))
    for i in range(20):
        decision = decided(now, ask(i, user, include=["reminder"]))
        assert (decision.holdout, decision.arm) == (True, "none")
        assert decision.propensity.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_user_is_in_the_same_group_at_every_stage_and_decision(live: Go) -> None:
    cart = live(holdout=0.5)
    cart = cart._replace(snapshot=msgspec.structs.replace(cart.snapshot, stage="cart"))
    for user in map(str, range(50)):
        groups = {decided(stage, ask(i, user)).holdout for stage in (cart, live(holdout=0.5)) for i in range(3)}
        assert groups == {in_holdout(randomization_unit(SALT, user), 0.5)}


def test_the_place_of_a_unit_is_the_keyed_hash_that_groups_were_always_drawn_from() -> None:
    """Else an upgrade would change everybody's group."""
    for user in map(str, range(200)):
        place = draw.unit(SALT, b"holdout", user.encode())
        unit = randomization_unit(SALT, user)
        assert len(unit) == 16
        assert in_holdout(unit, place + 2.0**-53)
        assert not in_holdout(unit, place)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_who_is_known_by_group_only_stays_in_it(share: float) -> None:
    for user in (user_hash(SALT, str(n)) for n in range(500)):
        assert in_holdout(unit_from_group(user, held=True, share=share), share)
        assert not in_holdout(unit_from_group(user, held=False, share=share), share)
        assert not in_holdout(unit_from_group(user, held=False, share=0.0), 0.0)


def test_a_decision_of_a_known_person_is_held_out_by_that_persons_unit(live: Go) -> None:
    now = live(holdout=0.5)
    for n in range(40):
        unit = randomization_unit(SALT, f"anon-{n}")
        made = decided(now, msgspec.structs.replace(ask(n, f"user-{n}"), unit=unit))
        assert (made.holdout, made.unit) == (in_holdout(unit, 0.5), unit)
        assert made.user == user_hash(SALT, f"user-{n}")


def test_the_ledger_gets_a_keyed_hash_of_the_user(live: Go) -> None:
    assert decided(live(), ask(1, "ann")).user == user_hash(SALT, "ann")
    hashes = {user_hash(salt, user) for salt in (SALT, b"other") for user in ("ann", "bob", "")}
    assert len(hashes) == 6
    assert {len(h) for h in hashes} == {16}
