"""Calibration: how far a scenario can be trusted, by its moments against calibration ranges, or against a customer's
own export.

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

An export gives the kinds rate, again, repeat and delay, and `fit` moves the parameter that each speaks about: base
rates (α), `user_sd`, `gap_days` and `gap_sd`, `delay_hours` and the shape of the delay. What is still off is said, not
hidden, and so are calibration ranges that the fit has left.
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

from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem
from bandit.tables import cells, reader
from simulations.offline.runner import DAY, EPOCH, CellRun, SimulationCell, StepDecisions
from simulations.population import Population
from simulations.scenario import Scenario
from simulations.visits import VisitSituation

SAMPLE = 40_000  # first visits that a moment is averaged over
TOLERANCE = 0.10  # of an export's numbers, relative
_QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}
_ROUNDS = 5
_STEP = 1.0  # days: no visit comes sooner after another
TUNED = ("effect", "none")
"""Moments that nobody exports: their ranges are what a scenario was tuned to."""

_EXPORTED = ("rate", "again", "repeat", "delay")


class CalibrationTarget(NamedTuple):
    """Calibration range of a moment: what the scenario's moment should be, from `low` to `high` in the moment's unit.
    `metric`: its name for people or in the export; `moment`: its name as in the module; `source`: where the range comes
    from.
    """

    metric: str
    moment: str
    low: float
    high: float
    source: str


class CustomerExport(NamedTuple):
    """A customer's own numbers as targets, and sentences on how their file was read."""

    targets: list[CalibrationTarget]
    notes: tuple[str, ...]


class CheckedMoment(NamedTuple):
    """A target beside the moment that the scenario has, in the same unit."""

    target: CalibrationTarget
    value: float

    @property
    def fits(self) -> bool:
        """Whether the value is within the target's range, ends included."""
        return self.target.low <= self.value <= self.target.high


class ScenarioMoments:
    """The moments of one scenario, computed when they are asked for. Rates are averages over 40,000 first visits drawn
    with `seed`, so the same seed gives the same moments. `catalogue`: TOML of the app's, "" for a shipped one.
    """

    def __init__(self, scenario: Scenario, seed: int = 0, catalogue: str = ""):
        self.scenario = scenario
        self._cell = SimulationCell(
            scenario=scenario, policy="fixed:none", users=6000, days=31, seed=1, journey=True, catalogue=catalogue
        )
        self._catalogue = self._cell.declared
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
        """The moment of that name, in the unit that the module states. Raises InvalidRequest if there is no such
        moment, stage or quantile.
        """
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
        """The population at a stage, made once and kept."""
        if stage not in self._people:
            self._people[stage] = Population(self.scenario, self._catalogue.stage(stage), stage)
        return self._people[stage]

    def _values(self, stage: str) -> tuple[Population, np.ndarray]:
        """Expected reward rates of a sample of first visits, (SAMPLE, k)."""
        people, rng = self.people(stage), np.random.default_rng(self._seed)
        persona = rng.choice(len(people.weights), size=SAMPLE, p=people.weights)
        normal, uniform = rng.standard_normal((SAMPLE, people.normals)), rng.random((SAMPLE, people.uniforms))
        return people, people.rate(people.positions(persona, normal, uniform), VisitSituation.first(SAMPLE))

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
        free = (people.worth.gain == people.stage.reward.value) & (np.arange(rate.shape[1]) > 0)
        return float(np.abs(rate.mean(axis=0) - rate[:, 0].mean())[free].mean())

    def _none(self) -> float:
        people, rate = self._values(self.scenario.stage)
        return float((people.utility(rate).argmax(axis=1) == 0).mean())

    def _day(self, day: int) -> float:
        days, seen = day + 31, _VisitDays(self._cell.users)
        made = CellRun(msgspec.structs.replace(self._cell, days=days), seen)
        for step in range(days):
            made.step(step)
        born = np.floor(made.crowd.traits.arrives).astype(np.int64)
        old = born < days - day
        there = np.array([born[u] + day in seen.days[u] for u in np.flatnonzero(old)])
        return float(there.mean())

    def _repeat(self, q: float) -> float:
        visits = self.scenario.visits
        return max(_STEP, visits.gap_days * math.exp(visits.gap_sd * special.ndtri(q)))

    def _delay(self, q: float) -> float:
        shape = self.scenario.delay_shape.get("none", 1.0)
        scale = self.scenario.delay_hours["none"] / special.gamma(1.0 + 1.0 / shape)
        return float(scale * (-math.log1p(-q)) ** (1.0 / shape))


class _VisitDays:
    """A decision sink that remembers on which days each user was there."""

    def __init__(self, users: int):
        self.days: list[set[int]] = [set() for _ in range(users)]

    def write(self, rows: StepDecisions) -> None:
        day = (int(rows.at[0]) - EPOCH) // DAY
        for user in rows.user:
            self.days[user].add(day)


def shipped_targets(app: str) -> list[CalibrationTarget]:
    """The calibration ranges of an app that come with the package, and those that hold for every app."""
    file = importlib.resources.files("simulations").joinpath("calibration.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [
        CalibrationTarget(row["metric"], row["moment"], float(row["low"]), float(row["high"]), row["source"])
        for row in rows
        if row["app"] in (app, "*")
    ]


def read_export(file: Path, renamed: Mapping[str, str] | None = None) -> CustomerExport:
    """A customer's export as targets: a table with the columns metric and value, each value to be met within 10 %.
    `renamed`: {our column: the file's}.

    Raises InvalidRequest with each line that cannot be used, or if there are no such columns or no rows.
    """
    for ours in renamed or {}:
        if ours not in ("metric", "value"):
            raise reader.refused(f"map {ours}", "there is no such column of an export", "metric or value")
    table = reader.read(str(file), lambda: file.open("rb"), renamed)
    if not {"metric", "value"} <= set(table.names):
        raise reader.refused(str(file), "has no columns metric and value", "e.g. rate.cart,0.13; or say --map")
    metric, value = table.place("metric"), table.place("value")
    problems, targets, lines = list[Problem](), list[CalibrationTarget](), dict[str, int]()
    for row in table.rows():
        made = _target(file.name, row.cells[metric], row.cells[value], table.marks[value])
        if isinstance(made, CalibrationTarget) and made.metric in lines:
            said = f"{made.metric} is in line {lines[made.metric]} already"
            problems.append(Problem(f"{file}:{row.line}", said, "give each metric once"))
        elif isinstance(made, CalibrationTarget):
            lines[made.metric] = row.line
            targets.append(made)
        else:
            problems.append(Problem(f"{file}:{row.line}", *made))
    if problems:
        raise InvalidRequest(*problems)
    if not targets:
        raise reader.refused(str(file), "it has no rows", "e.g. rate.cart,0.13")
    return CustomerExport(targets, table.notes)


def _target(file: str, metric: str, cell: str, mark: str) -> CalibrationTarget | tuple[str, str]:
    """The target that a row of an export wants; or its problem and fix."""
    kind = metric.partition(".")[0]
    if kind not in _EXPORTED:
        return f"{metric!r} is not a metric", closest(kind, _EXPORTED)
    value = None if cells.missing(cell) else cells.number(cell, mark)
    if value is None or not 0.0 < value < math.inf or (kind in ("rate", "again") and value >= 1.0):
        said = "no value" if cells.missing(cell) else f"{cell!r} is no such value"
        return f"{metric}: {said}", "a positive number, a rate below 1"
    return CalibrationTarget(metric, metric, value * (1.0 - TOLERANCE), value * (1.0 + TOLERANCE), f"{file}: {value:g}")


def unmeasured_targets(app: str, targets: Iterable[CalibrationTarget]) -> list[CalibrationTarget]:
    """The calibration ranges of an app that an export (`targets`) says nothing about: a fit to the export must not
    leave them.
    """
    said = {t.moment for t in targets}
    rates = {moment.split(".")[1] for moment in said if moment.startswith("rate.")}
    of_rates = ("rate", "abandoned", "ever", "funnel")

    def measured(moment: str) -> bool:
        kind, *at = moment.split(".")
        return moment in said or (kind in of_rates and bool(rates & set(at)))

    return [t for t in shipped_targets(app) if not measured(t.moment)]


def left_ranges(before: Iterable[CheckedMoment], after: Iterable[CheckedMoment]) -> list[str]:
    """Sentences on metrics that were within their range before a fit and are not after it, each with both values.
    `before` and `after` hold the same targets in the same order.
    """
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b.fits and not a.fits]
    return [f"{a.target.moment}: {b.value:.3g} before the fit, {a.value:.3g} after it" for b, a in pairs]


def check(scenario: Scenario, targets: Iterable[CalibrationTarget], catalogue: str = "") -> list[CheckedMoment]:
    """Each target beside the scenario's moment; `catalogue` as for `ScenarioMoments`. Raises InvalidRequest for a
    moment that does not exist.
    """
    moments = ScenarioMoments(scenario, catalogue=catalogue)
    return [CheckedMoment(target, moments.of(target.moment)) for target in targets]


def fit(scenario: Scenario, targets: Iterable[CalibrationTarget], catalogue: str = "") -> Scenario:
    """The scenario with the parameters that the targets speak about moved to the middle of their ranges, by the method
    of moments. Targets that no parameter can reach are met as nearly as possible; `check` says what is left. Raises
    InvalidRequest for a quantile or stage that does not exist.
    """
    targets = list(targets)
    wanted = {t.moment: 0.5 * (t.low + t.high) for t in targets}
    replace = msgspec.structs.replace
    gap = {float(special.ndtri(_quantile(t))): t for t in targets if t.moment.startswith("repeat.")}
    if gap:
        sd, middle = _fit_line(gap, scenario.visits.gap_sd, 0.0, floor=_STEP)
        visits = replace(scenario.visits, gap_days=math.exp(middle), gap_sd=max(sd, 0.0))
        scenario = replace(scenario, visits=visits)
    late = {math.log(-math.log1p(-_quantile(t))): t for t in targets if t.moment.startswith("delay.")}
    if late:
        scenario = _with_delays(scenario, late)
    for _ in range(_ROUNDS):  # what a user effect makes of a rate depends on the rate
        for moment, value in wanted.items():
            if moment.startswith("again."):
                scenario = _with_user_effect(scenario, moment, value, catalogue)
            elif moment.startswith("rate."):
                scenario = _with_rate(scenario, moment, value, catalogue)
    return scenario


def _quantile(target: CalibrationTarget) -> float:
    name = target.moment.partition(".")[2]
    if name not in _QUANTILES:
        raise reader.refused(f"metric {target.moment}", "no quantile", f"one of {', '.join(_QUANTILES)}")
    return _QUANTILES[name]


def _fit_line(
    points: Mapping[float, CalibrationTarget], slope: float, least: float, floor: float = 0.0
) -> tuple[float, float]:
    """(slope, intercept) of log value on the law's own scale, the slope at least `least`; one point keeps the slope.

    By least squares if that meets every range; else the line farthest inside all ranges (Chebyshev, a linear programme)
    if there is one; else least squares again. `floor`: smaller values become it, so that a range it is in has no lower
    end.
    """
    x = np.array(list(points))
    low = np.log([1e-9 if t.low <= floor else t.low for t in points.values()])
    high = np.log([t.high for t in points.values()])
    y = np.log([0.5 * (t.low + t.high) for t in points.values()])
    if len(x) == 1:
        return slope, float(y[0] - slope * x[0])
    a, b = (float(c) for c in np.polyfit(x, y, 1))
    if a >= least and ((low <= a * x + b) & (a * x + b <= high)).all():
        return a, b
    one = np.ones_like(x)
    rows = np.concatenate([np.column_stack([x, one, one]), np.column_stack([-x, -one, one])])  # t is the room inside
    free = (None, None)
    found = optimize.linprog([0.0, 0.0, -1.0], rows, [*high, *-low], bounds=[(least, None), free, free])
    if found.x is None or found.x[2] < 0.0:
        return a, b
    return float(found.x[0]), float(found.x[1])


def _with_delays(scenario: Scenario, late: Mapping[float, CalibrationTarget]) -> Scenario:
    """The scenario with the delay law fitted to quantiles. A Weibull law is a line: log t = log scale + log(−log(1 −
    q)) / shape. Other arms keep their ratio.
    """
    inverse, middle = _fit_line(late, 1.0 / scenario.delay_shape.get("none", 1.0), 0.05)
    shape = 1.0 / max(inverse, 0.05)
    mean = math.exp(middle) * float(special.gamma(1.0 + 1.0 / shape))
    ratio = mean / scenario.delay_hours["none"]
    hours = {arm: value * ratio for arm, value in scenario.delay_hours.items()}
    return msgspec.structs.replace(scenario, delay_hours=hours, delay_shape={**scenario.delay_shape, "none": shape})


def _with_user_effect(scenario: Scenario, moment: str, value: float, catalogue: str) -> Scenario:
    def excess(sd: float) -> float:
        return ScenarioMoments(msgspec.structs.replace(scenario, user_sd=sd), catalogue=catalogue).of(moment) - value

    if excess(0.0) >= 0.0 or excess(4.0) <= 0.0:  # out of reach: the nearer end, and the check says what is left
        return msgspec.structs.replace(scenario, user_sd=0.0 if excess(0.0) >= 0.0 else 4.0)
    return msgspec.structs.replace(scenario, user_sd=float(optimize.brentq(excess, 0.0, 4.0, xtol=1e-4)))


def _with_rate(scenario: Scenario, moment: str, value: float, catalogue: str) -> Scenario:
    """The scenario with the base rate of a stage moved so that the moment has this value. The rate is linear in the
    base rate but for what comes late, so one division does it.
    """
    stage = moment.split(".")[1]
    ratio = value / ScenarioMoments(scenario, catalogue=catalogue).of(moment)
    if stage == scenario.stage:
        return msgspec.structs.replace(scenario, base=min(scenario.base * ratio, 0.999))
    leg = scenario.journey[stage]
    base = min((leg.base or 0.0) * ratio, 0.999)
    return msgspec.structs.replace(
        scenario, journey={**scenario.journey, stage: msgspec.structs.replace(leg, base=base)}
    )
