"""How far a scenario can be trusted: its moments against calibration ranges, or against a customer's own export.

Moments of a scenario, by name:

    rate.STAGE          reward rate without a nudge at a first visit, within the attribution window
    abandoned.STAGE     1 − that
    ever.STAGE          reached in the end by those who come back as the journey says
    funnel.A.B          rate.A × rate.B
    again.STAGE         P(reward at the next visit | reward at this one), no nudge: what the user effect makes of it
    lift.STAGE.NUDGE    relative change of the rate when everybody gets the nudge
    effect, none        of the rich stage: mean |change| over nudges that cost nothing; share where no nudge is best
    day.N               share of users of the journey, no nudge shown, who are there again on day N after the first
    repeat.pQ           quantile Q of days between visits;  delay.pQ  of hours from decision to reward, no nudge

An export gives some of the last five kinds, and `fit` moves the parameter that each speaks about: base rates (α),
`user_sd`, `gap_days` and `gap_sd`, `delay_hours` and the shape of the delay. What is still off is said, not hidden.
"""

import csv
import importlib.resources
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy import optimize, special

from bandit.catalogue import Catalogue, parse, read_shipped
from bandit.decoding import closest
from bandit.errors import InvalidRequest, Problem
from simulations.population import Population, Situation
from simulations.runner import DAY, EPOCH, Cell, Decided, Run
from simulations.scenario import Scenario

SAMPLE = 40_000  # first visits that a moment is averaged over
TOLERANCE = 0.10  # of an export's numbers, relative
_QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}
_ROUNDS = 5
_EXPORTED = ("rate", "again", "repeat", "delay")


class Target(NamedTuple):
    """What a moment should be."""

    metric: str
    moment: str
    low: float
    high: float
    source: str


class Checked(NamedTuple):
    """A target beside what the scenario gives."""

    target: Target
    value: float

    @property
    def fits(self) -> bool:
        """Whether the value is within the range."""
        return self.target.low <= self.value <= self.target.high


class Moments:
    """The moments of one scenario, computed when asked for."""

    def __init__(self, scenario: Scenario, seed: int = 0):
        self.scenario = scenario
        self._catalogue: Catalogue = parse(read_shipped(scenario.app))
        self._seed = seed
        self._people: dict[str, Population] = {}
        self._kinds: dict[str, Callable[[list[str]], float]] = {
            "rate": lambda at: float(self._rates(at[0])[0]),
            "abandoned": lambda at: 1.0 - float(self._rates(at[0])[0]),
            "ever": lambda at: self._ever(at[0]),
            "funnel": lambda at: math.prod(float(self._rates(stage)[0]) for stage in at),
            "again": lambda at: self._again(at[0]),
            "lift": lambda at: self._lift(at[0], at[1]),
            "effect": lambda _: self._effect(),
            "none": lambda _: self._none(),
            "day": lambda at: self._day(int(at[0])),
            "repeat": lambda at: self._repeat(_QUANTILES[at[0]]),
            "delay": lambda at: self._delay(_QUANTILES[at[0]]),
        }

    def of(self, name: str) -> float:
        """The moment of that name. InvalidRequest if there is none."""
        kind, *at = name.split(".")
        self._known(name, kind, at)
        return self._kinds[kind](at)

    def _known(self, name: str, kind: str, at: list[str]) -> None:
        if kind not in self._kinds:
            raise InvalidRequest(Problem(f"metric {name}", "unknown", closest(kind, self._kinds)))
        if kind in ("repeat", "delay") and (len(at) != 1 or at[0] not in _QUANTILES):
            raise InvalidRequest(
                Problem(f"metric {name}", "no quantile", f"{kind}. and one of {', '.join(_QUANTILES)}")
            )
        if kind in ("rate", "again") and (len(at) != 1 or at[0] not in self._catalogue.stages):
            raise InvalidRequest(Problem(f"metric {name}", "no stage", closest(".".join(at), self._catalogue.stages)))

    def people(self, stage: str) -> Population:
        """Those at a stage."""
        if stage not in self._people:
            self._people[stage] = Population(self.scenario, self._catalogue.stage(stage), stage)
        return self._people[stage]

    def _values(self, stage: str) -> tuple[Population, np.ndarray]:
        """Expected reward rates of a sample of first visits, (SAMPLE, k)."""
        people, rng = self.people(stage), np.random.default_rng(self._seed)
        persona = rng.choice(len(people.weights), size=SAMPLE, p=people.weights)
        normal, uniform = rng.standard_normal((SAMPLE, people.normals)), rng.random((SAMPLE, people.uniforms))
        return people, people.rate(people.positions(persona, normal, uniform), Situation.first(SAMPLE))

    def _rates(self, stage: str) -> np.ndarray:
        people, rate = self._values(stage)
        return np.asarray(rate.mean(axis=0) / people.amount)

    def _ever(self, stage: str) -> float:
        p, back = float(self._rates(stage)[0]), self.scenario.journey[stage].otherwise.get(stage, 0.0)
        return p / (1.0 - (1.0 - p) * back)

    def _again(self, stage: str) -> float:
        people, nodes = self.people(stage), np.polynomial.hermite_e.hermegauss(21)
        weight = nodes[1] / nodes[1].sum()
        p = special.expit(people.level[:, None] + self.scenario.user_sd * nodes[0])  # (Z, nodes)
        joint = people.weights[:, None] * weight
        return float((joint * p * p).sum() / (joint * p).sum() * people.within[0])

    def _lift(self, stage: str, nudge: str) -> float:
        rates = self._rates(stage)
        return float(rates[self.people(stage).stage.arms.index(nudge)] / rates[0] - 1.0)

    def _effect(self) -> float:
        people, rate = self._values(self.scenario.stage)
        free = (people.kept == people.stage.reward.value) & (np.arange(rate.shape[1]) > 0)
        return float(np.abs(rate.mean(axis=0) - rate[:, 0].mean())[free].mean())

    def _none(self) -> float:
        people, rate = self._values(self.scenario.stage)
        return float((people.utility(rate).argmax(axis=1) == 0).mean())

    def _day(self, day: int) -> float:
        days, users = day + 31, 6000
        seen = _Seen(users)
        made = Run(
            Cell(scenario=self.scenario, policy="fixed:none", users=users, days=days, seed=1, journey=True), seen
        )
        for step in range(days):
            made.step(step)
        born = np.floor(made.crowd.traits.arrives).astype(np.int64)
        old = born < days - day
        there = np.array([born[u] + day in seen.days[u] for u in np.flatnonzero(old)])
        return float(there.mean())

    def _repeat(self, q: float) -> float:
        visits = self.scenario.visits
        return visits.gap_days * math.exp(visits.gap_sd * special.ndtri(q))

    def _delay(self, q: float) -> float:
        shape = self.scenario.delay_shape.get("none", 1.0)
        scale = self.scenario.delay_hours["none"] / special.gamma(1.0 + 1.0 / shape)
        return float(scale * (-math.log1p(-q)) ** (1.0 / shape))


class _Seen:
    """On which days each user was there."""

    def __init__(self, users: int):
        self.days: list[set[int]] = [set() for _ in range(users)]

    def write(self, rows: Decided) -> None:
        day = (int(rows.at[0]) - EPOCH) // DAY
        for user in rows.user:
            self.days[user].add(day)


def shipped(app: str) -> list[Target]:
    """The calibration ranges of an app."""
    file = importlib.resources.files("simulations").joinpath("calibration.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [
        Target(row["metric"], row["moment"], float(row["low"]), float(row["high"]), row["source"])
        for row in rows
        if row["app"] in (app, "*")
    ]


def exported(file: Path) -> list[Target]:
    """A customer's export: a CSV with the columns metric and value, each to be met within 10 %. InvalidRequest."""
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    if not rows or not {"metric", "value"} <= set(rows[0]):
        raise InvalidRequest(Problem(str(file), "has no columns metric and value", "e.g. rate.cart,0.13"))
    problems, targets = list[Problem](), list[Target]()
    for line, row in enumerate(rows, 2):
        try:
            value = float(row["value"])
        except ValueError:
            value = math.nan
        if row["metric"].split(".")[0] not in _EXPORTED:
            problems.append(Problem(f"{file}:{line}", f"{row['metric']!r} is not a metric", closest("", _EXPORTED)))
        elif not 0.0 < value < math.inf or (row["metric"].startswith(("rate", "again")) and value >= 1.0):
            problems.append(
                Problem(f"{file}:{line}", f"{row['value']!r} is no such value", "a positive number, a rate below 1")
            )
        else:
            low, high = value * (1.0 - TOLERANCE), value * (1.0 + TOLERANCE)
            targets.append(Target(row["metric"], row["metric"], low, high, f"{file.name}: {value:g}"))
    if problems:
        raise InvalidRequest(*problems)
    return targets


def check(scenario: Scenario, targets: Iterable[Target]) -> list[Checked]:
    """Each target beside the scenario's moment."""
    moments = Moments(scenario)
    return [Checked(target, moments.of(target.moment)) for target in targets]


def fit(scenario: Scenario, targets: Iterable[Target]) -> Scenario:
    """The scenario with the parameters that the targets speak about moved to them, by the method of moments."""
    wanted = {t.moment: 0.5 * (t.low + t.high) for t in targets}
    replace = msgspec.structs.replace
    gap = {_QUANTILES[m.split(".")[1]]: v for m, v in wanted.items() if m.startswith("repeat.")}
    if gap:
        sd, middle = _line({special.ndtri(q): math.log(v) for q, v in gap.items()}, scenario.visits.gap_sd)
        visits = replace(scenario.visits, gap_days=math.exp(middle), gap_sd=max(sd, 0.0))
        scenario = replace(scenario, visits=visits)
    late = {_QUANTILES[m.split(".")[1]]: v for m, v in wanted.items() if m.startswith("delay.")}
    if late:
        scenario = _delayed(scenario, late)
    for _ in range(_ROUNDS):  # what a user effect makes of a rate depends on the rate
        for moment, value in wanted.items():
            if moment.startswith("again."):
                scenario = _spread(scenario, moment, value)
            elif moment.startswith("rate."):
                scenario = _based(scenario, moment, value)
    return scenario


def _line(points: Mapping[float, float], slope: float) -> tuple[float, float]:
    """(slope, intercept) by least squares; one point keeps the slope."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    if len(x) == 1:
        return slope, float(y[0] - slope * x[0])
    fitted = np.polyfit(x, y, 1)
    return float(fitted[0]), float(fitted[1])


def _delayed(scenario: Scenario, late: Mapping[float, float]) -> Scenario:
    """A Weibull law is a line: log t = log scale + log(−log(1 − q)) / shape. Other arms keep their ratio."""
    points = {math.log(-math.log1p(-q)): math.log(v) for q, v in late.items()}
    inverse, middle = _line(points, 1.0 / scenario.delay_shape.get("none", 1.0))
    shape = 1.0 / max(inverse, 0.05)
    mean = math.exp(middle) * float(special.gamma(1.0 + 1.0 / shape))
    ratio = mean / scenario.delay_hours["none"]
    hours = {arm: value * ratio for arm, value in scenario.delay_hours.items()}
    return msgspec.structs.replace(scenario, delay_hours=hours, delay_shape={**scenario.delay_shape, "none": shape})


def _spread(scenario: Scenario, moment: str, value: float) -> Scenario:
    def excess(sd: float) -> float:
        return Moments(msgspec.structs.replace(scenario, user_sd=sd)).of(moment) - value

    if excess(0.0) >= 0.0 or excess(4.0) <= 0.0:  # out of reach: the nearer end, and the check says what is left
        return msgspec.structs.replace(scenario, user_sd=0.0 if excess(0.0) >= 0.0 else 4.0)
    return msgspec.structs.replace(scenario, user_sd=float(optimize.brentq(excess, 0.0, 4.0, xtol=1e-4)))


def _based(scenario: Scenario, moment: str, value: float) -> Scenario:
    """The rate is linear in the base rate but for what comes late, so one division does it."""
    stage = moment.split(".")[1]
    ratio = value / Moments(scenario).of(moment)
    if stage == scenario.stage:
        return msgspec.structs.replace(scenario, base=min(scenario.base * ratio, 0.999))
    leg = scenario.journey[stage]
    base = min((leg.base or 0.0) * ratio, 0.999)
    return msgspec.structs.replace(
        scenario, journey={**scenario.journey, stage: msgspec.structs.replace(leg, base=base)}
    )
