"""A twin of a known world: it says what policies bring there, it is a scenario like any other, and files hold it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import InvalidRequest
from simulations import scenario
from simulations.authoring import checks
from simulations.offline.paired import PairedRuns
from simulations.offline.runner import SimulationCell, run
from simulations.scenario import Scenario
from simulations.twin import fit, ranking, twin_file
from tests.simulations.twin.twin_worlds import log_of, one_stage, stage_of


def value(world: Scenario, policy: str, users: int = 3_000, seed: int = 900) -> float:
    done = run(SimulationCell(scenario=world, policy=policy, users=users, days=14, seed=seed))
    summary = done.stages[world.stage]
    return sum(summary.value) / sum(summary.decisions)


@pytest.mark.parametrize("app", scenario.names())
def test_a_twin_says_what_policies_bring(app: str) -> None:
    """No nudge and the oracle in the 99.9 % interval of the twin (normal, 24 draws): outside by chance in 2 of 1,000 if
    it covers. `python -m benchmarks.evidence.twin` counts how often 90 % intervals cover.
    """
    world = one_stage(app)
    made = fit.fit(app, world.stage, stage_of(app), log_of(world, users=1_500), draws=24)
    for policy in ("fixed:none", "oracle"):
        drawn = np.array([value(one, policy, 800, 30 + i) for i, one in enumerate(made.draws)])
        assert abs(value(world, policy) - drawn.mean()) < 3.8 * drawn.std(ddof=1)
        assert drawn.std(ddof=1) < 0.15 * abs(drawn.mean())


def test_a_twin_sees_a_nudge_that_harms() -> None:
    """One nudge of fintech takes .8 logits from everybody. 8,000 decisions say so."""
    world = one_stage("fintech")
    personas = {
        name: msgspec.structs.replace(p, effects=p.effects | {"video": -0.8}) for name, p in world.personas.items()
    }
    world = msgspec.structs.replace(world, personas=personas)
    made = fit.fit("fintech", world.stage, stage_of("fintech"), log_of(world, users=2_500), draws=16)
    losses = [value(one, "fixed:video", 500) - value(one, "fixed:none", 500) for one in made.draws]
    truth = value(world, "fixed:video") - value(world, "fixed:none")
    assert max(losses) < 0.0
    assert np.mean(losses) == pytest.approx(truth, rel=0.35)


def test_files_hold_a_twin(tmp_path: Path) -> None:
    world = one_stage("fashion")
    made = fit.fit("fashion", world.stage, stage_of("fashion"), log_of(world, users=400), draws=8)
    file = tmp_path / "twin.toml"
    beside = twin_file.write(made.scenario, made.draws, file, ["two", "lines"])
    read = checks.read(file, parse(read_shipped("fashion")))
    whole = msgspec.structs.replace(read, draws="")
    assert [name for name in whole.__struct_fields__ if getattr(whole, name) != getattr(made.scenario, name)] == []
    assert scenario.draws(read, file) == made.draws
    assert file.read_text().startswith("# two\n# lines\napp = ")
    assert len(beside.read_text().splitlines()) == 8
    again = fit.fit("fashion", world.stage, stage_of("fashion"), log_of(world, users=400), draws=8)
    assert again.draws == made.draws


def test_draws_that_are_spoiled_name_the_line(tmp_path: Path) -> None:
    world = one_stage("fintech")
    made = fit.fit("fintech", world.stage, stage_of("fintech"), log_of(world, users=300), draws=8)
    file = tmp_path / "twin.toml"
    beside = twin_file.write(made.scenario, made.draws, file, [])
    lines = beside.read_text().splitlines()
    beside.write_text("\n".join([*lines[:2], lines[2].replace('"base"', '"bass"'), *lines[3:]]))
    with pytest.raises(Exception, match=r"line 3[\s\S]*bass"):
        scenario.draws(scenario.read(file), file)


def test_contexts_are_those_that_were_seen() -> None:
    """Features of the twin's people have the means of the log's, within five standard errors."""
    world = one_stage("fashion")
    log = log_of(world, users=1_500)
    made = fit.fit("fashion", world.stage, stage_of("fashion"), log, draws=8)
    twin = log_of(made.scenario, users=1_500, seed=77)
    error = np.sqrt(log.x.var(axis=0) * (1 / len(log.x) + 1 / len(twin.x) + 1 / fit.ROWS))
    assert (np.abs(log.x.mean(axis=0) - twin.x.mean(axis=0)) <= 5.0 * error + 1e-3).all()
    seen = {tuple(row) for row in np.round(log.x, 2)}
    assert np.mean([tuple(row) in seen for row in np.round(twin.x, 2)]) > 0.99


def test_a_resample_is_another_sample_of_the_same_contexts() -> None:
    world = one_stage("fashion")
    made = fit.fit("fashion", world.stage, stage_of("fashion"), log_of(world, users=300), draws=8)
    one, same, other = (
        log_of(msgspec.structs.replace(made.scenario, resample=number), users=300).x for number in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one.mean(axis=0), other.mean(axis=0))
    assert {tuple(row) for row in one} <= {tuple(row) for row in log_of(made.scenario, users=9_000).x}


@pytest.mark.parametrize("keep", [slice(0, 150), slice(0, 0)])
def test_too_short_a_log_is_refused(keep: slice) -> None:
    log = log_of(one_stage("fintech"), users=200)
    rows = np.zeros(len(log.arm), dtype=bool)
    rows[keep] = True
    with pytest.raises(InvalidRequest, match="fit to 200 or more"):
        fit.fit("fintech", "onboarding", stage_of("fintech"), log.only(rows))


def test_a_log_without_a_reward_is_refused() -> None:
    log = log_of(one_stage("fintech"), users=200)
    with pytest.raises(InvalidRequest, match="0 of them rewarded"):
        fit.fit("fintech", "onboarding", stage_of("fintech"), log._replace(reward=np.zeros(len(log.arm))))


def test_ranks_are_shares_of_draws() -> None:
    """Three policies in four draws, by hand; what knows the truth is left out of the comparison."""
    none = np.zeros(4)

    def runs(policy: str, gain: list[float]) -> PairedRuns:
        return PairedRuns(policy, (1, 2, 3, 4), 10, 10.0 * np.array(gain), none)

    found = ranking.ranks(
        [runs("a", [3, 1, -1, 1]), runs("b", [1, 1, 2, -3]), runs("fixed:none", [0, 0, 0, 0]), runs("oracle", [3] * 4)],
        ["oracle"],
    )
    by = {one.policy: one for one in found}
    assert [one.policy for one in found] == ["oracle", "a", "b", "fixed:none"]
    assert (by["a"].best, by["b"].best, by["fixed:none"].best, by["oracle"].best) == (0.625, 0.375, 0.0, None)
    assert (by["a"].gain, by["a"].loses, by["a"].regret) == (1.0, 0.25, 0.75)
    assert by["fixed:none"].regret == 1.75
    assert by["oracle"].regret == 0.0
