"""rank(): one draw among actions that came with the request; pure, exact, and recomputable."""

import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from bandit import engine
from bandit.belief import empty, sites
from bandit.catalogue.loading import parse
from bandit.engine import PreparedPolicy, RankQuery
from bandit.errors import CatalogueError, InvalidRequest
from bandit.policies.shared import ONE, Action, Shared, taken
from bandit.snapshot import Snapshot

STAGE = parse("""
app = "news"
currency = "EUR"
[stages.offers]
policy = { name = "shared", columns = 32 }
floor = 0.02
holdout = 0.2
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
""").stages["offers"]
DIGESTS = (
    "30cf93b962ad2497650366ec956bde0e",
    "91e0def1b6caff6883ec99da186d1910",
)  # of STAGE, before features could be personal
CONTEXT: list[dict[str, Any]] = [{"device": "mobile"}]
ACTIONS = [Action("a", ({"topic": "x"},)), Action("b", ({"topic": "y"},)), Action("c"), Action("d")]


@pytest.fixture(scope="module")
def live() -> PreparedPolicy:
    """It has learned that b is better than the others, from 30 rows."""
    policy = STAGE.policy
    assert isinstance(policy, Shared)
    rng = np.random.default_rng(0)
    row = rng.integers(0, 4, 30)
    phi = policy.encode(CONTEXT, ACTIONS, b"s")[row]
    reward = np.where(row == 1, 0.6, 0.3)
    tau, nu = policy.sites(empty(1, 32), ONE, phi, taken(30), reward)
    belief = sites(1, phi, taken(30), tau, nu, reward)
    return engine.prepare(Snapshot("news", "offers", STAGE, 30, belief))


def ask(n: int, **more: Any) -> RankQuery:
    return RankQuery(id=uuid.UUID(int=n), event=f"e{n}", context=CONTEXT, actions=ACTIONS, **more)


def test_the_stated_probability_is_the_frequency_of_the_draw(live: PreparedPolicy) -> None:
    """5,000 events, Hoeffding: false alarm ≤ 1e-6 for the four together; an error of 0.08 is found with 1 − 1e-6."""
    bound = np.sqrt(np.log(2 * 4 / 1e-6) / (2 * 5000))
    made = [engine.rank(live, ask(n), now=1, salt=b"s") for n in range(6500)]
    drawn = [decision for decision in made if not decision.holdout][:5000]
    assert len(drawn) == 5000
    p = drawn[0].propensity
    assert all(decision.propensity.tobytes() == p.tobytes() for decision in drawn)
    shares = [np.mean([decision.arm == action.id for decision in drawn]) for action in ACTIONS]
    assert np.abs(shares - p).max() < bound
    assert p[1] == p.max() > 0.3
    assert p.min() >= 0.02


def test_personal_features_are_hashed_by_the_salt_and_such_rows_are_recomputed() -> None:
    """The rows of a declaration that does not say so have the columns and digests that they had before it could, so
    that what was recorded is learned and evaluated as it was.
    """
    policy = STAGE.policy
    assert isinstance(policy, Shared)
    found = {}
    for name, rule in (("plain", policy), ("personal", msgspec.structs.replace(policy, personal=True))):
        stage = msgspec.structs.replace(STAGE, policy=rule)
        live = engine.prepare(Snapshot("news", "offers", stage, 0, empty(1, 32)))
        for salt in (b"s", b"t"):
            made = found[name, salt] = engine.rank(live, ask(1), now=1, salt=salt)
            assert made.phi.tobytes() == rule.encode(CONTEXT, ACTIONS, salt).tobytes()
            assert engine.recompute(live, made, salt).propensity.tobytes() == made.propensity.tobytes()
    assert found["plain", b"s"].phi.tobytes() == found["plain", b"t"].phi.tobytes()
    assert len({found[key].phi.tobytes() for key in found}) == 3
    assert (STAGE.digest(), STAGE.learning_digest()) == DIGESTS
    personal = msgspec.structs.replace(STAGE, policy=msgspec.structs.replace(policy, personal=True))
    assert personal.learning_digest() != STAGE.learning_digest()  # old sums say nothing of other columns
    assert personal.digest() != STAGE.digest()


def test_control_events_get_the_first_action_that_may_be_taken(live: PreparedPolicy) -> None:
    """A share of 0.2: of 2,000 events between 0.14 and 0.26 (Hoeffding: outside with at most 1.2e-6)."""
    made = [engine.rank(live, ask(n, refused={"a": "no"}), now=1, salt=b"s") for n in range(2000)]
    held = [decision for decision in made if decision.holdout]
    assert 0.14 < len(held) / 2000 < 0.26
    for decision in held:
        assert (decision.arm, decision.propensity.tolist()) == ("b", [0.0, 1.0, 0.0, 0.0])
        assert decision.excluded.keys() == {"a", "c", "d"}


def test_a_decision_holds_all_that_is_needed_to_make_it_again(live: PreparedPolicy) -> None:
    for n in range(50):
        made = engine.rank(live, ask(n, refused={"d": "no"} if n % 2 else {}), now=1, salt=b"s")
        again = engine.recompute(live, made, b"s")
        assert all(
            np.array_equal(getattr(again, name), getattr(made, name))
            for name in ("propensity", "mean", "sd", "u", "arm")
        )
        assert made.x.tobytes() == made.phi[made.actions.index(made.arm)].tobytes()
        assert engine.rank(live, ask(n, refused={"d": "no"} if n % 2 else {}), now=1, salt=b"s").u == made.u
        assert engine.recompute(live, made, b"t").u != made.u


def test_what_cannot_be_ranked_is_refused(live: PreparedPolicy) -> None:
    with pytest.raises(InvalidRequest, match="no action is left"):
        engine.rank(live, ask(1, refused=dict.fromkeys("abcd", "no")), now=1, salt=b"s")
    with pytest.raises(InvalidRequest, match="there twice"):
        engine.rank(live, msgspec.structs.replace(ask(1), actions=[Action("a"), Action("a")]), now=1, salt=b"s")
    declared = parse("""
app = "news"
currency = "EUR"
[stages.offers]
policy = { name = "beta" }
reward = { kind = "binary", window = "10m" }
features = {}
nudges.tip = { type = "help", format = "popup" }
""").stages["offers"]
    other = engine.prepare(Snapshot("news", "offers", declared, 0, empty(2, 1)))
    with pytest.raises(InvalidRequest, match="its nudges are declared"):
        engine.rank(other, ask(1), now=1, salt=b"s")


def test_many_requests_at_once_are_ranked_like_each_alone(live: PreparedPolicy) -> None:
    policy = STAGE.policy
    assert isinstance(policy, Shared)
    x = np.array([policy.encode([{"device": name}], ACTIONS, b"s") for name in ("mobile", "desktop")])
    may = np.array([[True, True, True, True], [False, True, True, False]])
    every = live.posterior.choose_many(x, may)
    for i in range(2):
        one = live.posterior.choose(x[i], may[i])
        assert all(np.array_equal(part[i], alone) for part, alone in zip(every, one, strict=True))


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ('features = { a = { type = "boolean", default = false } }', "stages.offers.features"),
        ('nudges.tip = { type = "help", format = "popup" }', "stages.offers.nudges"),
        ("ramp = 0.5", "stages.offers.ramp"),
        ("top_two = 0.5", "stages.offers.top_two"),
        ("price = 1.0", "stages.offers.price"),
        ("limits = { per_day = 1 }", "stages.offers.limits"),
        ('loop = { retry = "soon" }', "stages.offers.loop.retry"),
        ('loop = { rewards = "all" }', "stages.offers.loop.rewards"),
    ],
)
def test_a_shared_stage_declares_nothing_about_people_or_nudges(extra: str, field: str) -> None:
    text = f"""
app = "news"
currency = "EUR"
[stages.offers]
policy = {{ name = "shared" }}
reward = {{ kind = "binary", window = "10m" }}
{extra}
"""
    with pytest.raises(CatalogueError) as wrong:
        parse(text)
    assert wrong.value.mistakes[0].field == field
