"""The loss account in money and in words."""

import msgspec
import pytest

from bandit.catalogue.loading import parse
from bandit.learning.loss_account import CLOSED, FIRST, FIRST_EXPECTED, LossAccount, first_day
from bandit.learning.loss_statement import statement
from tests.bandit.learning.test_loss_account import TEXT

STAGE = parse(TEXT.replace("policy = {", 'loss = "2%"\npolicy = {', 1)).stages["cart"]
"""One unit of the reward is worth 20 EUR."""

ACCOUNT = LossAccount(share=0.25, budget=6.0, gain=-1.5, sd=0.5, room=2.0, daily=0.8, reserve=1.68)


def test_amounts_are_in_money_and_the_share_is_the_engines() -> None:
    found = statement(STAGE, ACCOUNT)
    assert (found.share, found.traffic, found.declared, found.known) == (0.25, 0.25, 0.02, True)
    assert (found.budget, found.spent, found.left, found.daily) == (120.0, 30.0, 40.0, 16.0)
    assert found.budget - found.reserve - found.spent_at_most == pytest.approx(found.left)
    assert (found.spent_at_least, found.spent_at_most) == pytest.approx((30.0 - 16.4, 30.0 + 16.4))
    half = statement(msgspec.structs.replace(STAGE, ramp=0.5), ACCOUNT)
    assert (half.share, half.traffic) == (0.25, 0.125)


def test_three_sentences_say_what_it_may_cost_what_it_has_cost_and_what_it_decides() -> None:
    may, has, decides = statement(STAGE, ACCOUNT).in_words("EUR")
    assert may == (
        "Learning may cost 2% of what is earned with no nudge: EUR 120.00 of a month, or of all so far if that is "
        "more; EUR 33.60 of it are held in reserve."
    )
    few = statement(STAGE, msgspec.structs.replace(ACCOUNT, scaled=0.05)).in_words("EUR")[0]
    assert "2% of what is earned with no nudge, and 0.1% while there is so little traffic to learn from: EUR" in few
    assert has == (
        "So far it has cost EUR 30.00 against no nudge, as a sceptic sees it (90 %: EUR 13.60 lost to EUR 46.40 lost); "
        "EUR 40.00 may still be lost."
    )
    assert decides.startswith("It decides 25% of the traffic outside the holdout: what may still be lost")
    ramped = statement(msgspec.structs.replace(STAGE, ramp=0.5), ACCOUNT).in_words("EUR")[2]
    assert ramped.startswith("It decides 12.5% of the traffic outside the holdout (25% of the ramp): ")


def test_what_was_earned_is_not_called_a_cost_and_what_is_overdrawn_says_so() -> None:
    won = msgspec.structs.replace(ACCOUNT, gain=1.5, sd=1.0)
    assert (
        "it has earned EUR 30.00 against no nudge, as a sceptic sees it (90 %: EUR 62.80 earned to EUR 2.80 lost)"
        in (statement(STAGE, won).in_words("EUR")[1])
    )
    shut = statement(STAGE, msgspec.structs.replace(ACCOUNT, share=0.0, room=-0.25))
    _, has, decides = shut.in_words("EUR")
    assert has.endswith("nothing may still be lost, EUR 5.00 too much may have been.")
    assert decides.startswith(
        "It decides 0% of the traffic outside the holdout: what learning may have cost has reached"
    )
    assert shut.why.startswith("closed: ")
    assert "with a larger `loss`" in shut.why


def test_an_account_of_which_nothing_is_known_yet_makes_no_amounts_up() -> None:
    for account, share in ((first_day("kept"), FIRST), (first_day("expected"), FIRST_EXPECTED), (CLOSED, 0.0)):
        found = statement(STAGE, account)
        assert (found.share, found.known) == (share, False)
        may, has, _ = found.in_words("EUR")
        assert "EUR" not in may + has
        assert has == "What it has cost is not known yet."
    assert "first day" in statement(STAGE, first_day("kept")).why
    assert "no account was made yet" in statement(STAGE, CLOSED).why
