"""When people come and when rewards come: laws that are known are found again."""

import msgspec
import numpy as np
import pytest

from simulations.twin import timing_model
from simulations.twin.app_log import coupons, past
from tests.simulations.twin.twin_worlds import log_of, one_stage, stage_of


def test_laws_of_a_scenario_are_found() -> None:
    """4,000 users of travel: gaps, delays, opt-outs and evidence as the scenario declares them. Tolerances are four
    standard errors or more of each estimate.
    """
    world = one_stage("travel")
    world = msgspec.structs.replace(world, fatigue=msgspec.structs.replace(world.fatigue, opt_out=-3.5, leaves=0.0))
    stage, log = stage_of("travel"), log_of(world, users=4_000, days=21)
    found = past(log, coupons(stage), keeps=0.85, learns=0.5, forgets=0.1)
    visits = timing_model.visits(log, found)
    assert visits.gap_days == pytest.approx(world.visits.gap_days, rel=0.06)
    assert visits.gap_sd == pytest.approx(world.visits.gap_sd, abs=0.06)
    assert visits.people == 4_000
    assert visits.people_per_day == pytest.approx(4_000 / 21, rel=0.01)
    weekly = np.array(world.visits.weekly) / np.mean(world.visits.weekly)
    np.testing.assert_allclose(visits.weekly, weekly, atol=0.2)
    assert timing_model.opt_outs(log, found).logits == pytest.approx(-3.5, abs=0.35)
    assert timing_model.evidence_shares(stage, log) == {"deadline": pytest.approx(world.proof["deadline"], abs=0.03)}
    delays = timing_model.delays(stage, log)
    hours = dict(zip(stage.arms, delays.hours, strict=True))
    assert hours["discount_10"] == pytest.approx(world.delay_hours["discount_10"], rel=0.3)
    assert hours["discount_10"] < hours["reminder"]
    assert (delays.within > 0.85).all()


def test_a_gap_longer_than_the_log_is_not_taken_for_a_short_one() -> None:
    """Users come back after 30 days, most of them after the log ends: the gaps that are seen are the short ones."""
    world = one_stage("fintech")
    world = msgspec.structs.replace(world, visits=msgspec.structs.replace(world.visits, gap_days=30.0))
    log = log_of(world, users=3_000, days=21)
    found = past(log, coupons(stage_of("fintech")), keeps=0.85, learns=0.5, forgets=0.1)
    seen = found.gap[~np.isnan(found.gap)]
    assert np.median(seen) < 12.0
    assert timing_model.visits(log, found).gap_days == pytest.approx(30.0, rel=0.25)


def test_nobody_who_opts_out_is_nobody() -> None:
    world = one_stage("fintech")
    world = msgspec.structs.replace(world, fatigue=msgspec.structs.replace(world.fatigue, opt_out=-50.0))
    log = log_of(world, users=500)
    found = past(log, coupons(stage_of("fintech")), keeps=0.85, learns=0.5, forgets=0.1)
    law = timing_model.opt_outs(log, found)
    assert law.logits == law.draw(np.random.default_rng(0)) == -50.0


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_delays_that_are_all_the_same_have_a_law(seconds: float) -> None:
    """Rewards at once, or always an hour later: a sharp law around that, of finite numbers."""
    stage = stage_of("travel")
    log = log_of(one_stage("travel"), users=600)
    law = timing_model.delays(stage, log._replace(delay=np.where(log.reward > 0, seconds, np.nan)))
    np.testing.assert_allclose(law.hours, max(seconds, 1.0) / 3600.0, rtol=0.15)
    assert np.isfinite(law.log_hours_sd).all()
    assert 2.0 < law.shape < 9.0
    assert (law.draw(np.random.default_rng(0)).within > 0.99).all()


def test_without_times_delays_are_a_tenth_of_the_window() -> None:
    stage = stage_of("travel")
    log = log_of(one_stage("travel"), users=300)
    law = timing_model.delays(stage, log._replace(delay=np.full(len(log.arm), np.nan)))
    np.testing.assert_allclose(law.hours, stage.reward.seconds / 36_000.0)
