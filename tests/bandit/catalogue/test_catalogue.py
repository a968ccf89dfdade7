"""A catalogue with mistakes is refused once, with all of them; one without them is what it says."""

import re
from collections.abc import Callable
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalogue import model
from bandit.catalogue.loading import parse, read_shipped, shipped
from bandit.catalogue.model import Stage
from bandit.errors import CatalogueError, NotFound, Problem
from bandit.policies import AnyPolicy, Centred, Fixed
from bandit.policies.shared import Shared

TEXT = """
app = "shop"
currency = "EUR"

[stages.cart]
policy = { name = "linear" }
floor = 0.01
reward = { kind = "binary", window = "24h", value = 10.0 }

[stages.cart.features]
age = { type = "number", min = 0, max = 99, default = 30 }
member = { type = "boolean", default = false }
device = { type = "category", values = ["mobile", "desktop"], default = "mobile" }

[stages.cart.nudges]
discount = { type = "discount", format = "popup", cost_when_rewarded = 2.0 }
low_stock = { type = "scarcity", format = "badge", evidence = { kind = "stock", at_most = 5 } }
"""

APPS = {"fintech", "fashion", "travel", "subscription", "gaming"}
STAGES = ["onboarding", "browsing", "cart", "checkout", "retention"]
NAMES = sorted(str(made.__struct_config__.tag) for made in get_args(AnyPolicy | Shared))
POLICIES = f"known: {', '.join(NAMES)}"
TABLE = " or ".join(f'"{name}"' for name in NAMES)


def mistakes(text: str) -> dict[str, Problem]:
    """What `parse` says is wrong, by path."""
    with pytest.raises(CatalogueError) as caught:
        parse(text, "shop.toml")
    found = {m.field: m for m in caught.value.mistakes}
    assert len(found) == len(caught.value.mistakes), "two mistakes at one path: name the paths apart"
    assert all(str(m) in str(caught.value) for m in found.values())
    assert str(caught.value).startswith(f"shop.toml: {len(found)} mistake(s)\n")
    return found


# -- what is shipped -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", shipped())
def test_every_shipped_catalogue_parses(app: str) -> None:
    assert parse(read_shipped(app), f"{app}.toml").app == app


def test_the_five_apps_have_the_five_stages_of_the_journey() -> None:
    assert set(shipped()) == APPS | {"hillstrom"}
    for app in APPS:
        assert list(parse(read_shipped(app)).stages) == STAGES


def test_an_unknown_app_is_answered_with_the_closest_one() -> None:
    with pytest.raises(NotFound, match="did you mean `travel`") as caught:
        read_shipped("travle")
    assert caught.value.problem.field == "app"


def test_an_unknown_stage_is_answered_with_the_closest_one() -> None:
    with pytest.raises(NotFound, match="did you mean `cart`") as caught:
        parse(TEXT).stage("card")
    assert caught.value.problem.field == "stage"


# -- one test for each check -----------------------------------------------------------------------------------

AGE = "age = { type = "
DEVICE = 'values = ["mobile", "desktop"], default = "mobile"'

CHECKS = [  # (what is written, what is written instead, path of the mistake, a part of the problem, a part of the fix)
    # form
    ('currency = "EUR"', "", "currency", "missing", "add it: a text"),
    ('currency = "EUR"', "currency = 3", "currency", "Expected `str`", "write a text here"),
    ("floor = 0.01", "flor = 0.01", "stages.cart.flor", "unknown key", "did you mean `floor`?"),
    ("floor = 0.01", "floor = 1.0", "stages.cart.floor", "< 1.0", "write a number at least"),
    ("floor = 0.01", "floor = nan", "stages.cart.floor", ">= 0.0", "write a number at least"),
    ("floor = 0.01", 'loss = "1"', "stages.cart.loss", "no percentage", "none"),
    ("floor = 0.01", 'loss = "0%"', "stages.cart.loss", "no percentage", "2%"),
    ("floor = 0.01", 'loss = "101%"', "stages.cart.loss", "up to 100", "2%"),
    ("floor = 0.01", "holdout = -0.1", "stages.cart.holdout", ">= 0.0", "write a number at least"),
    ("value = 10.0", "value = inf", "stages.cart.reward.value", "<= 1000000000.0", "write a number"),
    ("value = 10.0", "value = 0", "stages.cart.reward.value", ">= 1e-06", "write a number at least"),
    ("value = 10.0", f"value = {10**400}", "stages.cart.reward.value", "out of range", "write a number at least"),
    ("max = 99", "max = inf", "stages.cart.features.age.max", "<= 1000000000000.0", "write a number at least"),
    ("at_most = 5", "at_most = 0", "stages.cart.nudges.low_stock.evidence.at_most", ">= 1", "write a whole number"),
    ('kind = "stock"', 'kind = "rumour"', "stages.cart.nudges.low_stock.evidence.kind", "rumour", "one of 'stock'"),
    ('{ kind = "stock", at_most = 5 }', "true", "stages.cart.nudges.low_stock.evidence", "got bool", "with kind here"),
    ('"mobile", "desktop"]', '"mobile", 3]', "stages.cart.features.device.values[1]", "`str`", "each a text"),
    ('{ type = "boolean", default = false }', "3", "stages.cart.features.member", "expected a table", "type, default"),
    ('type = "boolean"', 'type = "bool"', "stages.cart.features.member.type", "bool", "one of 'number', 'boolean'"),
    (
        '{ name = "linear" }',
        '"linear"',
        "stages.cart.policy",
        "got str",
        f"a table with name = {TABLE} here",
    ),
    ('{ name = "linear" }', "{ alpha = 1 }", "stages.cart.policy.name", "missing", POLICIES),
    ('{ name = "linear" }', '{ name = "liner" }', "stages.cart.policy.name", "unknown: 'liner'", "`linear`? known: b"),
    ('{ name = "linear" }', '{ name = ["beta"] }', "stages.cart.policy.name", "unknown: ['beta']", POLICIES),
    ('{ name = "linear" }', '{ name = "beta", alpha = 1.5 }', "stages.cart.policy.alpha", "<= 1.0", "write a number"),
    (
        '"linear"',
        '"beta", prior_success = 0.5',
        "stages.cart.policy.prior_success",
        ">= 1.0",
        "write a number at least",
    ),
    ('{ name = "linear" }', '{ name = "linear", alfa = 1 }', "stages.cart.policy.alfa", "unknown key", "`alpha`?"),
    # names
    ('"shop"', '"Shop!"', "app", "'Shop!' is not a usable id", "lower-case letters"),
    ("discount = {", "Discount = {", "stages.cart.nudges.Discount", "'Discount' is not a usable id", "lower-case"),
    ("age = {", f"{'a' * 41} = {{", f"stages.cart.features.{'a' * 41}", "is not a usable id", "lower-case letters"),
    ("discount = {", "none = {", "stages.cart.nudges.none", "`none` is there already", "remove it or rename it"),
    # features
    ("min = 0, max = 99", "min = 0", "stages.cart.features.age", "needs min < max", "declare both"),
    ("min = 0, max = 99", "min = 99, max = 99", "stages.cart.features.age", "needs min < max", "declare both"),
    ("default = 30", "default = 100", "stages.cart.features.age.default", "100.0 is not in the", "in [0, 99]"),
    ("default = 30", "default = true", "stages.cart.features.age.default", "True is not in the", "in [0, 99]"),
    ("default = 30", 'default = "x"', "stages.cart.features.age.default", "'x' is not in the", "in [0, 99]"),
    ("default = false", "default = 0", "stages.cart.features.member.default", "is not a boolean", "true or false"),
    (DEVICE, 'values = ["a"], default = "a"', "stages.cart.features.device.values", "two or more", "list them all"),
    (DEVICE, 'values = ["a", "a"], default = "a"', "stages.cart.features.device.values", "distinct", "list them all"),
    ('default = "mobile"', 'default = "mobil"', "stages.cart.features.device.default", "'mobil' is not", "`mobile`?"),
    ("default = false", "default = false, min = 0", "stages.cart.features.member", "are for numbers", "remove them"),
    ("default = false", 'default = false, scale = "log"', "stages.cart.features.member", "are for numbers", "remove"),
    ("default = 30", 'default = 30, values = ["a"]', "stages.cart.features.age.values", "are for categor", "remove"),
    # rewards
    ('"24h"', '"24 h"', "stages.cart.reward.window", "'24 h' is not a duration", '"30m", "72h", "14d"'),
    ('"24h"', '"24h", delay = "windows"', "stages.cart.reward.delay", "'windows' is not a duration", 'or "window"'),
    ('"24h"', '"window"', "stages.cart.reward.window", "'window' is not a duration", "longer than 0s"),
    ('"24h"', '"0h"', "stages.cart.reward.window", "'0h' is not a duration", '"30m", "72h", "14d"'),
    ('"24h"', '"3651d"', "stages.cart.reward.window", "'3651d' is not a duration", "up to 3650d"),
    ('"24h"', f'"{"9" * 400}d"', "stages.cart.reward.window", "is not a duration", "up to 3650d"),
    ('"24h"', '"٣h"', "stages.cart.reward.window", "is not a duration", '"30m"'),  # a digit, but not one of ours
    ('"binary"', '"continuous", min = 2, max = 2', "stages.cart.reward.max", "the range is empty", "min < max"),
    ('"binary"', '"continuous", default = 2', "stages.cart.reward.default", "outside the reward's range", "[0, 1]"),
    ('"binary"', '"binary", max = 2', "stages.cart.reward.kind", "a binary reward is 0 or 1", 'kind = "continuous"'),
    # how long people are kept
    ('"EUR"', '"EUR"\nretention = "23h"', "retention", "stage cart come for longer: its window of 24h", "1d or longer"),
    ('"EUR"', '"EUR"\nretention = "a year"', "retention", "'a year' is not a duration", "nobody is erased for it"),
    ('"EUR"', '"EUR"\nretention = "0s"', "retention", "'0s' is not a duration", "longer than 0s"),
    ('"EUR"', '"EUR"\nretention = 400', "retention", "Expected `str | null`", "write a text here"),
    # nudges
    ("rewarded = 2.0", "rewarded = 10.0", "stages.cart.nudges.discount.cost_when_rewarded", "never pay", "value of 10"),
    (", at_most = 5", "", "stages.cart.nudges.low_stock.evidence.at_most", "missing", "the largest stock that is"),
    # a stage as a whole
    ("floor = 0.01", "floor = 0.34", "stages.cart.floor", "the floors of all arms reach 1", "below 0.333 for 3 arms"),
    ('"binary"', '"continuous"', "stages.cart.policy.name", "beta needs a binary reward", 'or "linear"'),
    ('{ name = "linear" }', '{ name = "fixed", arm = "a" }', "stages.cart.policy.arm", "no such arm", "known: discou"),
]


@pytest.mark.parametrize(("old", "new", "path", "problem", "fix"), CHECKS, ids=[f"{c[2]}: {c[3]}" for c in CHECKS])
def test_one_mistake_is_reported_once_with_its_path_and_fix(
    old: str, new: str, path: str, problem: str, fix: str
) -> None:
    base = TEXT.replace("linear", "beta") if problem.startswith("beta needs") else TEXT
    assert base.count(old) == 1
    (found,) = mistakes(base.replace(old, new)).values()
    assert found.field == path
    assert problem in found.problem
    assert fix in found.fix


def test_people_are_kept_for_the_longest_window_and_its_grace_at_least() -> None:
    graceful = TEXT.replace('"24h"', '"24h", grace = "90m"').replace('"EUR"', '"EUR"\nretention = "25h"')
    (found,) = mistakes(graceful).values()
    assert found.problem.endswith("of stage cart come for longer: its window of 24h and its grace of 90m")
    assert found.fix == "1530m or longer, or leave it out"
    assert parse(graceful.replace('"25h"', '"1530m"')).retention == "1530m"
    assert list(mistakes(graceful.replace('"24h"', '"soon"'))) == ["stages.cart.reward.window"]


def test_a_retention_changes_no_digest() -> None:
    before, after = parse(TEXT), parse(TEXT.replace('"EUR"', '"EUR"\nretention = "400d"'))
    assert (before.retention, after.retention) == (None, "400d")
    assert before.stages["cart"].digest() == after.stages["cart"].digest()


def test_a_stage_without_a_policy_is_centred() -> None:
    assert parse(TEXT.replace('policy = { name = "linear" }', "")).stages["cart"].policy == Centred()


def test_the_text_of_these_tests_is_without_mistakes() -> None:
    assert parse(TEXT).stages["cart"].arms == ("none", "discount", "low_stock")


@pytest.mark.parametrize("text", ["app = ", "app = 'a'\napp = 'b'", "\x00"])
def test_what_is_not_toml_is_said_with_its_place(text: str) -> None:
    assert re.search(r"not TOML: .* \(at (line \d|end of document)", mistakes(text)["(file)"].problem)


def test_an_empty_file_misses_everything() -> None:
    assert set(mistakes("")) == {"app", "currency", "stages"}


def test_an_app_without_stages_is_told_how_to_add_one() -> None:
    assert mistakes('app = "a"\ncurrency = "EUR"\nstages = {}')["stages"].fix == "add a table [stages.checkout]"


def test_mistakes_of_every_kind_are_reported_at_once() -> None:
    """Form, names and meaning, in tables that stand inside one another: nothing hides anything."""
    text = """
        app = "Shop"
        nonsense = 1

        [stages.Cart]
        policy = { name = "fixed", arm = "discuont" }
        floor = 0.5
        reward = { kind = "binary", window = "soon", min = 0.5, default = 1, colour = "red" }
        features.age = { type = "number", min = 9, max = 1, default = 3, unit = "years" }
        features.member = { type = "boolean", default = 1 }
        nudges.none = { type = "t", format = "f" }
        nudges.discount = { type = "t", format = "f", cost_when_rewarded = 1, evidence = { kind = "stock" } }

        [stages.broken]
        policy = { name = "bandit" }
        floor = "high"
        reward = { kind = "continuous", window = "0s" }
        features.Size = { type = "category", values = ["a"], default = "b" }
        nudges.dear = { type = "t", cost = -1, evidence = { kind = "stock" } }
    """
    found = mistakes(text)
    assert set(found) == {
        *("app", "currency", "nonsense"),
        *("stages.Cart", "stages.Cart.policy.arm", "stages.Cart.floor"),
        *("stages.Cart.reward.window", "stages.Cart.reward.colour", "stages.Cart.reward.kind"),
        *("stages.Cart.features.age", "stages.Cart.features.age.unit", "stages.Cart.features.member.default"),
        *("stages.Cart.nudges.none", "stages.Cart.nudges.discount.cost_when_rewarded"),
        "stages.Cart.nudges.discount.evidence.at_most",
        *("stages.broken.policy.name", "stages.broken.floor", "stages.broken.reward.window"),
        *("stages.broken.features.Size", "stages.broken.features.Size.values"),
        *("stages.broken.nudges.dear.format", "stages.broken.nudges.dear.cost"),
        "stages.broken.nudges.dear.evidence.at_most",
    }
    assert found["stages.Cart.policy.arm"].fix.startswith("did you mean `discount`?")
    assert all(m.problem and m.fix for m in found.values())


@given(st.sampled_from(sorted(TEXT.split())), st.text(max_size=6) | st.sampled_from(["{}", "[]", "3", "inf", '""']))
def test_whatever_is_written_is_a_catalogue_or_a_list_of_mistakes(word: str, instead: str) -> None:
    try:
        outcome: object = parse(TEXT.replace(word, instead)).stages
    except CatalogueError as error:
        outcome = error.mistakes
    assert outcome


# -- what a catalogue means ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("14d", 1_209_600)])
def test_a_window_is_a_number_of_seconds(make_stage: Callable[..., Stage], window: str, seconds: float) -> None:
    assert msgspec.structs.replace(make_stage().reward, window=window).seconds == seconds


@given(st.floats(-1e9, 1e9), st.floats(-100, 100), st.floats(1e-3, 100))
def test_a_reward_is_clipped_and_scaled_to_its_range(value: float, low: float, span: float) -> None:
    reward = model.Reward(kind="continuous", window="1h", min=low, max=low + span, default=low)
    scaled = reward.scaled(value)
    assert 0.0 <= scaled <= 1.0
    if reward.min <= value <= reward.max:
        assert low + scaled * span == pytest.approx(value, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_utility_ranks_arms_as_money_does(seed: int) -> None:
    """gain·r̃ − cost is ((value − cost when rewarded)·r − cost) / (value·span) for every arm and reward."""
    rng = np.random.default_rng(seed)
    value, low, span = rng.uniform(1, 50), rng.uniform(-5, 5), rng.uniform(0.5, 20)
    paid, shown = rng.uniform(0, 0.9) * value, rng.uniform(0, 3)
    nudge = model.Nudge(type="t", format="f", cost=shown, cost_when_rewarded=paid)
    reward = model.Reward(kind="continuous", window="1h", value=value, min=low, max=low + span, default=low)
    stage = model.Stage(features={}, nudges={"a": nudge}, reward=reward, policy=Fixed())
    scaled = rng.random(2)
    money = (value - np.array([0.0, paid])) * (low + span * scaled) - np.array([0.0, shown])
    utility = stage.arm_economics
    np.testing.assert_allclose(utility.gain * scaled - utility.cost, money / (value * span), rtol=0, atol=1e-12)
    assert (utility.gain > 0).all()


LEARNED_ANEW = [
    ("max = 99", "max = 98"),
    ("default = 30", 'default = 30, scale = "log"'),
    ('"mobile", "desktop"]', '"mobile", "desktop", "other"]'),
    ("member = {", "fan = {"),
    ('kind = "binary"', 'kind = "continuous"'),
]
LEARNED_ON = [
    ("default = 30", "default = 31"),
    ('{ name = "linear" }', '{ name = "uniform" }'),
    ("floor = 0.01", "floor = 0.02"),
    ("discount = {", "sale = {"),
    ("value = 10.0", "value = 11.0"),
    ('"24h"', '"25h"'),
]


@pytest.mark.parametrize(("old", "new"), LEARNED_ANEW)
def test_the_learning_digest_changes_when_old_statistics_lose_their_meaning(old: str, new: str) -> None:
    before, after = parse(TEXT).stages["cart"], parse(TEXT.replace(old, new)).stages["cart"]
    assert before.learning_digest() != after.learning_digest()
    assert before.digest() != after.digest()


@pytest.mark.parametrize(("old", "new"), LEARNED_ON)
def test_the_learning_digest_stays_when_old_statistics_still_hold(old: str, new: str) -> None:
    before, after = parse(TEXT).stages["cart"], parse(TEXT.replace(old, new)).stages["cart"]
    assert before.learning_digest() == after.learning_digest()
    assert before.digest() != after.digest()
