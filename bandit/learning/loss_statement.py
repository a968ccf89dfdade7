"""Statement of a loss account: the account of a stage in the app's currency, and in words, as everybody who looks at it
sees it: metrics, receipts, the list of policies, reviews and simulations.
"""

import math

import msgspec

from bandit.catalogue.model import Stage
from bandit.learning.loss_account import CLOSED, LossAccount, first_day

_MOST_PLACES = 9  # after the point
_FIRST_DAYS = first_day("kept"), first_day("expected")


class LossStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Loss account in currency. `share` is the bits that the engine used.

    Fields: `share` of the traffic outside the holdout that the account lets the policy decide; `traffic`: that share
    times the declared `ramp`, what it does decide; `declared`: the loss as declared, a share of what a month earns with
    no nudge; `effective`: the part of it that may be lost at this traffic, smaller where there is too little to learn
    from. In currency: `budget`: what that is of a month, or of all traffic so far if it is more; `reserve`: what of the
    budget is not spent, because estimates are; `spent` so far over no nudge (below 0: earned), with its 90 % interval
    `spent_at_least` to `spent_at_most`; `left`: what may still be lost, budget − reserve − spent_at_most under the rule
    `kept`, below 0 where it is overdrawn; `daily`: what a day may cost if the policy decides all traffic. Amounts are 0
    where nothing is `known` yet.
    """

    share: float
    traffic: float
    declared: float
    effective: float
    budget: float
    reserve: float
    spent: float
    spent_at_least: float
    spent_at_most: float
    left: float
    daily: float
    known: bool
    why: str

    def in_words(self, currency: str) -> tuple[str, str, str]:
        """Three sentences: what learning may cost, what it has cost, and which traffic the policy decides and why."""
        may = f"Learning may cost {_percent(self.declared)} of what is earned with no nudge"
        reason = self.why.partition(": ")[2] or self.why
        ramp = f" ({_percent(self.share)} of the ramp)" if self.traffic != self.share else ""
        decides = f"It decides {_percent(self.traffic)} of the traffic outside the holdout{ramp}: {reason}."
        if not self.known:
            may += "; how much money that is shows after a day of traffic."
            return may, "What it has cost is not known yet.", decides
        if self.effective < self.declared:
            may += f", and {_percent(self.effective)} while there is so little traffic to learn from"
        may += f": {_money(self.budget, currency)} of a month, or of all so far if that is more"
        may += f"; {_money(self.reserve, currency)} of it are held in reserve." if self.reserve > 0.0 else "."
        low, high = _lost(self.spent_at_least, currency), _lost(self.spent_at_most, currency)
        verb = "earned" if self.spent < 0.0 else "cost"
        has = f"So far it has {verb} {_money(abs(self.spent), currency)} against no nudge, as a sceptic sees it"
        return may, f"{has} (90 %: {low} to {high}); {_left(self.left, currency)}.", decides


def statement(stage: Stage, account: LossAccount) -> LossStatement:
    """Statement of a stage's account. Amounts are in the app's currency: those of the account are in units of the
    reward's range.
    """
    unit = stage.reward.value * (stage.reward.max - stage.reward.min)
    return LossStatement(
        share=account.share,
        traffic=stage.traffic * account.share,
        declared=stage.loss_share or 0.0,
        effective=account.scaled * (stage.loss_share or 0.0),
        budget=unit * account.budget,
        reserve=unit * account.reserve,
        spent=unit * account.spent,
        spent_at_least=unit * account.spent_at_least,
        spent_at_most=unit * account.spent_at_most,
        left=unit * account.room,
        daily=unit * account.daily,
        known=account not in (*_FIRST_DAYS, CLOSED),
        why=_why(account),
    )


def _why(account: LossAccount) -> str:
    if account in _FIRST_DAYS:
        return (
            "a fixed part until the first day has passed: nothing is known of the traffic yet; then the account opens"
        )
    if account == CLOSED:
        return "closed: no account was made yet; the next publication of what is learned makes one"
    return account.why


def _left(left: float, currency: str) -> str:
    if left == 0.0:
        return "nothing may still be lost"
    if left < 0.0:
        return f"nothing may still be lost, {_money(-left, currency)} too much may have been"
    return f"{_money(left, currency)} may still be lost"


def _lost(amount: float, currency: str) -> str:
    return f"{_money(abs(amount), currency)} {'earned' if amount < 0.0 else 'lost'}"


def _money(amount: float, currency: str) -> str:
    """An amount with two digits after the point, or three significant ones if it is small."""
    digits = 2 if abs(amount) >= 1.0 or amount == 0.0 else min(2 - math.floor(math.log10(abs(amount))), _MOST_PLACES)
    text = f"{amount:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if digits > 2 else text
    return f"{currency} {text}".strip()


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g}%"
