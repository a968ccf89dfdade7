"""A declared loss where people hardly ever reward, and where few people come: the benchmark's own runs, fixed seeds."""

import pytest

from bandit.learning import loss_account
from benchmarks.evidence.small_traffic import DECLARED, FEW, HARMFUL, run


def test_a_declared_loss_is_a_part_of_what_people_earn_and_not_of_what_the_prior_expects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reward rate of 1 % under a prior of 10 %, nudges that end all rewards; with the prior's rate it is broken."""
    found = run(HARMFUL[1], 30, 0)
    assert 0.0 < found.percent < 0.5 * DECLARED
    assert found.accounts[-1].share == 0.0
    monkeypatch.setattr(loss_account, "_rate", lambda policy, _: policy.prior_mean)
    assert run(HARMFUL[1], 30, 0).percent > DECLARED


def test_a_closed_account_of_few_people_opens_again_and_finds_nudges_that_pay() -> None:
    """33 decisions a day, nudges that bring 60 % more: closed within a month, open within eight."""
    found = run(FEW[1], 240, 0)
    shares = [account.share for account in found.accounts]
    assert min(shares[:60]) == 0.0
    assert shares[-1] == 1.0
    assert found.percent < -10.0
