"""Does the loss account keep a declared loss where people hardly ever reward, and does it open where few people come?

    python -m benchmarks.evidence.small_traffic [--seeds 3] [--days 240] [--quick]

One stage without features, three or six nudges that cost nothing, rewards known a day later, and true reward rates that
the prior of the policy (0.1) does not know. Small enough to be followed by hand: the engine's own functions, no service
and no simulator between.

    loss     what learning truly cost, in % of what no nudge earns, over the run; below 0: earned (mean and worst seed)
    kept     runs that lost no more than the declared 2 %
    share    of the traffic that the account lets the policy decide, on days 1, 30, 60, …, of the first seed
"""

import argparse
from typing import NamedTuple

import numpy as np

from bandit import engine
from bandit.arrays import Array
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Stage
from bandit.learning.loss import ExposureLog
from bandit.learning.loss_account import DAY, Exposures, LossAccount
from bandit.learning.statistics import SettledRows, StageStatistics, nothing
from bandit.propensity.draw import draw_many

DECLARED = 2.0  # %
_NUDGE = '[stages.cart.nudges.n{0}]\ntype = "t{0}"\nformat = "banner"\n'
_APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "centred" }}
reward = {{ kind = "binary", window = "1d", value = 10.0 }}
[stages.cart.features]
{0}"""


class SmallApp(NamedTuple):
    """Small app: nudges, decisions a day, reward rate without a nudge, and the factor by which every nudge multiplies
    it.
    """

    nudges: int
    daily: int
    rate: float
    factor: float


class SmallRun(NamedTuple):
    """Run of a small app: what learning cost (below 0: earned) and what no nudge would have earned, both in rewards,
    and the loss account at the end of each day.
    """

    lost: float
    earned: float
    accounts: list[LossAccount]

    @property
    def percent(self) -> float:
        """Loss in % of what no nudge would have earned."""
        return 100.0 * self.lost / self.earned


HARMFUL = (SmallApp(6, 600, 0.005, 0.3), SmallApp(6, 600, 0.01, 0.0), SmallApp(3, 300, 0.01, 0.3))
FEW = (SmallApp(3, 33, 0.12, 1.0), SmallApp(3, 33, 0.12, 1.6), SmallApp(3, 135, 0.12, 1.0), SmallApp(3, 135, 0.12, 1.6))


def run(app: SmallApp, days: int, seed: int) -> SmallRun:
    """Run of an app for so many days; the account is looked at once a day."""
    rng = np.random.default_rng(seed)
    stage = parse(_APP.format("".join(_NUDGE.format(i) for i in range(app.nudges)))).stages["cart"]
    rates = np.array([app.rate, *[app.rate * app.factor] * app.nudges])
    learned, log = nothing(stage), ExposureLog(stage, stage.arms, 1)
    live = log.accounted(engine.prepare(learned.snapshot("shop", "cart")), 0)
    made, lost, earned, accounts = list[SettledRows](), 0.0, 0.0, list[LossAccount]()
    for day in range(days):
        n = int(rng.poisson(app.daily))
        x, everything = np.ones((n, 1)), np.ones((n, len(rates)), dtype=bool)
        scores = engine.choose_many(live, x, everything)
        arm = draw_many(scores.propensity, rng.random(n))
        at = np.sort(rng.integers(0, DAY, n)) + day * DAY
        log.put(Exposures(x, scores.propensity, scores.mean[:, 0].copy(), everything, at, at // DAY))
        lost, earned = lost + float((rates[0] - rates[arm]).sum()), earned + n * app.rate
        for rows in made:
            learned = _after(learned, stage, rows)
        reward, one = (rng.random(n) < rates[arm]).astype(float), np.arange(n)
        came, zero = np.where(reward > 0.0, at + 1, 0), np.zeros(n)
        mean, sd = scores.mean[one, arm], scores.sd[one, arm]
        columns = (one, at + DAY, arm, x, reward, zero, zero, at, at + DAY, came, mean, sd, one, scores.propensity)
        made = [SettledRows(*columns)]
        live = log.accounted(engine.prepare(learned.snapshot("shop", "cart")), (day + 1) * DAY)
        account = live.snapshot.loss_account
        assert account is not None  # noqa: S101 - the stage declares a loss
        accounts.append(account)
    return SmallRun(lost, earned, accounts)


def _after(learned: StageStatistics, stage: Stage, rows: SettledRows) -> StageStatistics:
    """Statistics after the rows of a day have settled."""
    snapshot, n = learned.snapshot("shop", "cart"), len(rows.seq)
    x: Array = stage.learner.design(rows.x, rows.arm, rows.propensity)
    tau, nu = stage.learner.sites(snapshot.belief, snapshot.arms, x, rows.arm, rows.reward)
    numbers = learned.version + 1 + np.arange(n)
    version = np.full(n, learned.version)
    folded = learned.fold(rows._replace(seq=numbers, tau=tau, nu=nu, version=version))
    return folded._replace(version=learned.version + n)


def main() -> None:
    """Parse the arguments, run each app with each seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=int, default=240, help="of the apps with few people; the others run for 30")
    parser.add_argument("--quick", action="store_true", help="one seed, 60 days: does it run?")
    options = parser.parse_args()
    seeds, longest = (1, 60) if options.quick else (options.seeds, options.days)
    print("nudges  a day   rate  factor  days   loss %: mean, worst   kept   budget %   share on days 1, 30, 60, …")
    for app, days in (*((one, 30) for one in HARMFUL), *((one, longest) for one in FEW)):
        runs = [run(app, days, seed) for seed in range(seeds)]
        loss = [one.percent for one in runs]
        last, shares = runs[0].accounts[-1], [account.share for account in runs[0].accounts]
        shown = " ".join(f"{shares[day]:.2f}" for day in (0, *range(29, days, 30)))
        whose = f"{app.nudges:6d} {app.daily:6d} {app.rate:6.3f} {app.factor:7.1f} {days:5d}"
        kept, budget = sum(one <= DECLARED for one in loss), 100.0 * last.budget / runs[0].earned
        print(f"{whose}   {np.mean(loss):9.2f} {max(loss):9.2f}   {kept}/{seeds}   {budget:8.2f}   {shown}")


if __name__ == "__main__":
    main()
