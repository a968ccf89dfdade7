"""Drafts: for every catalogue in the repository, whatever it declares, a scenario that fits and runs at once."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError, InvalidRequest
from simulations.authoring import checks, draft
from simulations.offline import study
from simulations.offline.runner import run

ROOT = Path(__file__).parents[3]


def catalogues() -> Iterator[tuple[str, str]]:
    """Every catalogue of the package, the tests and the documents, as TOML."""
    for file in sorted([*ROOT.glob("bandit/catalogue/apps/*.toml"), *ROOT.glob("tests/**/*.toml")]):
        yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for page in sorted(ROOT.glob("docs/**/*.md")):
        blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        yield from ((f"{page.relative_to(ROOT)} {i}", block) for i, block in enumerate(blocks))


def usable(text: str) -> bool:
    try:
        parse(text)
    except CatalogueError:  # parts of one, other files, or a policy of a package that is not installed
        return False
    return True


FOUND = {name: text for name, text in catalogues() if usable(text)}
EVERYTHING = """
app = "all_kinds"
currency = "CHF"
[stages.start]
reward = { kind = "revenue", window = "30d", max = 500.0, value = 0.3, delay = "5d" }
policy = { name = "linear", prior_mean = 0.02 }
[stages.start.features]
spent = { type = "number", min = 0, max = 5000, default = 20, scale = "log" }
vip = { type = "boolean", default = false }
region = { type = "category", values = ["north sea", "süd", "\\"quoted\\"", "other"], default = "other" }
[stages.start.nudges.bonus]
type = "bonus"
format = "banner"
cost = 0.01
cost_when_rewarded = 0.1
[stages.start.nudges.few_left]
type = "scarcity"
format = "banner"
evidence = { kind = "stock", at_most = 5 }
[stages.start.nudges.ends_soon]
type = "countdown"
format = "banner"
evidence = { kind = "deadline" }
limits = { per_day = 1 }
[stages.later]
reward = { kind = "continuous", window = "1h", min = -1.0, max = 3.0, delay = "window" }
policy = { name = "linear" }
[stages.later.features]
[stages.later.nudges.hello]
type = "help"
format = "popup"
"""


def test_there_are_catalogues_to_try() -> None:
    assert {
        "bandit/catalogue/apps/travel.toml",
        "tests/journey_shop.toml",
        "docs/guides/catalogue.md 0",
    } <= FOUND.keys()
    assert len(FOUND) >= 11


@pytest.mark.parametrize("name", [*FOUND, "everything"])
def test_a_draft_of_any_stage_fits_and_runs_at_once(name: str) -> None:
    text = FOUND.get(name, EVERYTHING)
    catalogue = parse(text)
    able = [stage for stage, one in catalogue.stages.items() if not one.has_request_actions]
    for stage in able:
        made = draft.draft(catalogue, stage)
        found = checks.checked(made, catalogue, "draft.toml")
        assert found.stage == stage
        journeys = {False, len(able) == len(catalogue.stages)}
        for policy, journey in [(policy, way) for policy in ("default", "oracle") for way in journeys]:
            size = {"users": 200, "days": 3}
            (cell,) = study.cells(found, [policy], [1], **size, journey=journey, catalogue=text)
            done = run(cell)
            assert list(done.stages) == (list(catalogue.stages) if journey else [stage])
            assert sum(done.stages[stage].decisions) > 0 or journey
    if not able:
        with pytest.raises(InvalidRequest, match="no stage declares its nudges"):
            draft.draft(catalogue)


def test_a_draft_takes_from_the_catalogue_what_is_there() -> None:
    catalogue = parse(EVERYTHING)
    found = checks.checked(draft.draft(catalogue), catalogue, "draft.toml")
    assert found.stage == "start", "the stage with most nudges"
    assert found.base == 0.02, "prior_mean"
    assert set(found.delay_hours.values()) == {120.0}, "delay"
    assert found.proof == {"stock": 0.5, "deadline": 0.5}
    assert found.coupons.arms == ["bonus"]
    assert found.journey["start"].amount == 125.0
    assert all(len(p.features["region"]) == 3 for p in found.personas.values())  # type: ignore[arg-type]


def test_every_value_of_a_draft_stands_beside_a_comment() -> None:
    text = draft.draft(parse(FOUND["bandit/catalogue/apps/travel.toml"]))
    head = text.split("[delay_hours]")[0]
    bare = [
        line for line in head.splitlines() if line and "#" not in line and not line.startswith(("[", "weight", "in"))
    ]
    assert bare == []


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="did you mean `start`"):
        draft.draft(parse(EVERYTHING), "strat")
