"""Scenario: who uses an app, and how each nudge changes what they do. Data, written as TOML.

The rich stage of an app is described in full, its other stages in short (`journey`). What people do over time is in
`fatigue`, `novelty`, `season`, `drift`, `coupons` and `visits`; each is neutral where it is left out. Parameters were
assumed in the range of field studies (docs/explanation/simulator.md); what has no source says "assumed".
"""

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bandit.catalogue.decoding import closest, decode
from bandit.catalogue.loading import read_toml
from bandit.catalogue.model import NONE, Catalogue, Feature, Stage
from bandit.errors import CatalogueError, NotFound, Problem
from bandit.tables.texts import decoded

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Slopes = dict[str, float | dict[str, float]]
"""Feature → logits per unit of the encoded feature (2p − 1 of a number at the position p of its range, 0 or 1 of a
boolean); of a category {value: logits}.
"""
Contexts = dict[str, list[bool | float | str]]
"""Feature → its value in each of n visits, in the feature's own units; all lists are equally long."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a scenario: frozen, and no key that it does not know."""


class Persona(_Part, frozen=True, kw_only=True):
    """A latent kind of person. The service never sees which persona somebody is.

    `weight`: share of all people. `intent`: logits above the average person. `effects`: logits that each nudge adds.
    `features`: for a number, the median of its position in the declared range (on its declared scale, 0 to 1); for a
    boolean, P(true); for a category, P(value). `harvests`: share of the persona's people who learn to wait for coupons.
    """

    weight: Share
    intent: float
    effects: dict[str, float]
    features: dict[str, Share | dict[str, Share]]
    harvests: Share = 0.0


class FurtherStage(_Part, frozen=True, kw_only=True):
    """One stage of the journey, in short; lists are in the order of the personas. The rich stage has one too, of which
    `amount` and what leads onward (`then`, `rests`, `stays`, `otherwise`) count.

    `base`, `effects`, `features`, `delay_hours`, `proof`, `base_slopes`, `slopes`, `contexts`: as for the rich stage; a
    feature left out says nothing about the persona. `amount`: what a reward is, where it is not 0 or 1. `then`: the
    stage after a reward, on the next day; with `rests`, only after the usual gap; `stays`: share of the rewarded who
    come again at all. `otherwise`: stage → P(next visit is there) after silence; the rest leaves the app for good.
    """

    base: Share | None = None
    effects: dict[str, list[float]] = {}
    features: dict[str, list[Share]] = {}
    delay_hours: Positive = 2.0
    proof: dict[str, Share] = {}
    amount: Positive = 1.0
    base_slopes: Slopes = {}
    slopes: dict[str, Slopes] = {}
    contexts: Contexts = {}
    then: str
    rests: bool = False
    stays: Share = 1.0
    otherwise: dict[str, Share]


class Fatigue(_Part, frozen=True, kw_only=True):
    """Fatigue F of a user by nudges: F ← keeps^days · (F + 1{nudged}). F takes `tires`·F logits from every arm,
    e^(−dulls·F) of a nudge's effect.

    A nudge makes its user switch nudges off with probability σ(opt_out + F); the share `leaves` of those leaves the
    app. `opt_out` is in logits; without values for it, nobody tires and nobody opts out.
    """

    keeps: Share = 0.85
    tires: NotNegative = 0.0
    dulls: NotNegative = 0.0
    opt_out: float = -50.0
    leaves: Share = 0.0


class Novelty(_Part, frozen=True, kw_only=True):
    """Novelty: effects wear off after launch by the factor rest + (1 − rest)·e^(−t/days), t in days; `rest` 1 is no
    novelty.
    """

    rest: Share = 1.0
    days: Positive = 30.0


class EffectDrift(_Part, frozen=True, kw_only=True):
    """Drift of effects, for each nudge its own. `kind`: `ou` wanders as an Ornstein–Uhlenbeck process with stationary
    sd `sd` (logits) and `half_life_days`; `redraw` adds one draw of N(0, sd²) on day `day`; `none` is no drift. The
    path is a function of the scenario's `number`, not of the seed of a run.
    """

    kind: Literal["none", "ou", "redraw"] = "none"
    sd: NotNegative = 0.2
    half_life_days: Positive = 30.0
    day: NotNegative = 30.0
    number: int = 0


class CouponHabit(_Part, frozen=True, kw_only=True):
    """Coupon habit: what harvesters wait for. T ← T + learns·(1 − T) when a coupon is shown, else T·(1 − forgets); an
    arm that is no coupon loses depth·T logits.

    `arms`: which arms are coupons. `cap_days`: the frequency cap of the app, no second coupon within so many days; 0 is
    none.
    """

    arms: list[str] = []
    depth: NotNegative = 0.0
    learns: Share = 0.5
    forgets: Share = 0.1
    cap_days: NotNegative = 0.0


class VisitTiming(_Part, frozen=True, kw_only=True):
    """Visit timing: days between visits are lognormal with median `gap_days` and sd of their logarithm `gap_sd`, at
    least one step.

    `weekly`: relative number of first visits on each day, Monday first. `pull_forward`: logits that the visit after a
    coupon was redeemed has less of, because it was brought forward.
    """

    gap_days: Positive = 3.0
    gap_sd: NotNegative = 0.8
    weekly: tuple[NotNegative, ...] = (1.0,) * 7
    pull_forward: NotNegative = 0.0


class Scenario(_Part, frozen=True, kw_only=True):
    """Scenario of one app: everything that a simulation invents. Frozen; unknown keys are refused when it is read.

    `app` and `stage`: the app and its rich stage. `base`: reward rate without any nudge. `spread`: sd of a number's
    position around its persona's median, in logits; `correlation`: of any two of them. `user_sd`: sd of what sets
    a person apart from the persona, in logits of intent. `personas`: their weights sum to 1. `people_per_day`:
    arrivals in a live run. `amount`: what a reward is, where it is not 0 or 1 and `journey` does not say.

    `hesitation`: which features are its signals, `dwell` and `back_tracks`, whose law follows from intent.
    `base_slopes`: what features add to the logits of a reward, whatever is shown; `slopes`: what they add to the effect
    of a nudge, by nudge. With `base_slopes`, `base` is the rate where all encoded features are 0. `delay_hours`: mean
    hours from the decision to the reward, by arm; `delay_shape`: of its Weibull law, 1 (exponential) if left out.
    `proof`: P(the app can prove the claim), by kind of evidence. `season`: logits, amplitude of the week.

    `contexts`: features of visits as they were seen, of which every visit of the simulation takes one, whatever its
    persona; then personas declare none. `resample`: with a number above 0 they are drawn again with replacement before
    that, by this number. `draws`: a file beside this one with other scenarios that the same data allow, one in JSON on
    each line; they take the contexts of this one.
    """

    app: str
    stage: str
    base: Share
    spread: Positive = 0.8
    correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    user_sd: NotNegative = 0.0
    season: NotNegative = 0.0
    personas: dict[str, Persona]
    hesitation: dict[Literal["dwell", "back_tracks"], str] = {}
    base_slopes: Slopes = {}
    slopes: dict[str, Slopes] = {}
    delay_hours: dict[str, Positive]
    delay_shape: dict[str, Positive] = {}
    proof: dict[str, Share] = {}
    people_per_day: Positive = 600.0
    amount: Positive = 1.0
    fatigue: Fatigue = Fatigue()
    novelty: Novelty = Novelty()
    drift: EffectDrift = EffectDrift()
    coupons: CouponHabit = CouponHabit()
    visits: VisitTiming = VisitTiming()
    journey: dict[str, FurtherStage] = {}  # stage → what it is and where it leads
    contexts: Contexts = {}
    resample: Annotated[int, msgspec.Meta(ge=0)] = 0
    draws: str = ""


def names() -> list[str]:
    """Names of the scenarios that come with the package, one for each app, in alphabetical order."""
    files = importlib.resources.files("simulations.scenarios").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load(app: str) -> Scenario:
    """The scenario of an app that comes with the package. Raises NotFound if there is none, CatalogueError with every
    mistake in it.
    """
    if app not in names():
        raise NotFound("app", f"there is no scenario for {app!r}", closest(app, names()))
    file = importlib.resources.files("simulations.scenarios").joinpath(f"{app}.toml")
    return parse(file.read_text(encoding="utf-8"), f"scenario {app}")


def read(file: Path) -> Scenario:
    """The scenario in a .toml file, or in the JSON that `simulate validate --save` writes. Raises CatalogueError with
    every mistake, OSError if the file cannot be read.
    """
    text = decoded(file.read_bytes(), str(file))
    return parse_json(text, str(file)) if file.suffix == ".json" else parse(text, str(file))


def draws(scenario: Scenario, file: Path) -> tuple[Scenario, ...]:
    """The draws of a scenario that was read from `file`: whole scenarios, each as likely as any other; () if it names
    no file of draws. Raises CatalogueError with the first mistake, OSError if the file cannot be read.
    """
    if not scenario.draws:
        return ()
    beside = file.with_name(scenario.draws)
    lines = decoded(beside.read_bytes(), str(beside)).splitlines()
    read_ = [parse_json(line, f"{beside}, line {number}") for number, line in enumerate(lines, 1)]
    return tuple(_with_contexts_of(scenario, one) for one in read_)


def _with_contexts_of(scenario: Scenario, one: Scenario) -> Scenario:
    replace = msgspec.structs.replace
    journey = {
        name: replace(leg, contexts=scenario.journey[name].contexts) if name in scenario.journey else leg
        for name, leg in one.journey.items()
    }
    return replace(one, contexts=scenario.contexts, journey=journey)


def times(slopes: Slopes, factor: float) -> Slopes:
    """Slopes times a factor."""
    return {
        feature: {value: factor * own for value, own in slope.items()} if isinstance(slope, dict) else factor * slope
        for feature, slope in slopes.items()
    }


def parse_json(text: str, file: str) -> Scenario:
    """The scenario in JSON `text`. Raises CatalogueError with the first mistake; `file` is for the message."""
    try:
        return msgspec.json.decode(text, type=Scenario)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CatalogueError(file, [Problem("(file)", str(error), "mend it there")]) from None


def parse(text: str, file: str) -> Scenario:
    """The scenario in TOML `text`. Raises CatalogueError with every mistake of form; `file` is for the message. Whether
    it fits a catalogue is for `check` and `check_journey`.
    """
    raw = read_toml(text, file)
    mistakes: list[Problem] = []
    scenario: Scenario | None = decode(raw, Scenario, "", mistakes)
    if scenario is None:
        raise CatalogueError(file, mistakes)
    return scenario


def short_run_warning(scenario: Scenario, days: int) -> str | None:
    """A sentence of warning about a simulation of `days` days, if most users would come back only after its end; else
    None.
    """
    gap = scenario.visits.gap_days
    if gap <= days:
        return None
    return f"half of all gaps between visits exceed {gap:.3g} days, and {days} are simulated: most users come once"


def check(scenario: Scenario, stage: Stage) -> None:
    """Check a scenario against its rich stage. Raises CatalogueError with every mistake unless it speaks of exactly the
    nudges and features that the stage declares, and the personas' weights sum to 1.
    """
    mistakes: list[Problem] = []
    signals = set(scenario.hesitation.values())
    if abs(sum(p.weight for p in scenario.personas.values()) - 1.0) > 1e-9:
        mistakes.append(Problem("personas", "their weights do not sum to 1", "adjust them"))
    for name, persona in scenario.personas.items():
        _require_same(f"personas.{name}.effects", set(persona.effects), set(stage.nudges), mistakes)
        own = set[str]() if scenario.contexts else set(stage.features) - signals
        _require_same(f"personas.{name}.features", set(persona.features), own, mistakes)
    _require_same("delay_hours", set(scenario.delay_hours), {NONE, *stage.nudges}, mistakes)
    for path, given in (("delay_shape", scenario.delay_shape), ("coupons.arms", scenario.coupons.arms)):
        _require_known(path, set(given), {NONE, *stage.nudges}, mistakes)
    numbers = {name for name, feature in stage.features.items() if feature.type == "number"}
    _require_known("hesitation", signals, numbers, mistakes)
    mistakes += _slope_mistakes("", scenario.base_slopes, scenario.slopes, stage)
    mistakes += _context_mistakes("contexts", scenario.contexts, stage)
    if scenario.contexts and scenario.hesitation:
        mistakes.append(Problem("hesitation", "with contexts, which are as they were seen", "leave it out"))
    _raise_mistakes(scenario, mistakes)


def check_journey(scenario: Scenario, catalogue: Catalogue) -> None:
    """Check a scenario's journey against a catalogue. Raises CatalogueError with every mistake unless every stage of
    the app has a leg that speaks of what the stage declares.
    """
    mistakes: list[Problem] = []
    _require_same("journey", set(scenario.journey), set(catalogue.stages), mistakes)
    for name, leg in scenario.journey.items():
        path = f"journey.{name}"
        _require_known(f"{path}.then", {leg.then}, set(catalogue.stages), mistakes)
        _require_known(f"{path}.otherwise", set(leg.otherwise), set(catalogue.stages), mistakes)
        if sum(leg.otherwise.values()) > 1.0 + 1e-9:
            mistakes.append(Problem(f"{path}.otherwise", "more than 1 in all", "what is left of 1 leaves the app"))
        if name != scenario.stage and name in catalogue.stages:
            mistakes += _leg_mistakes(path, leg, catalogue.stages[name], len(scenario.personas))
    _raise_mistakes(scenario, mistakes)


def _leg_mistakes(path: str, leg: FurtherStage, stage: Stage, personas: int) -> list[Problem]:
    mistakes: list[Problem] = []
    if leg.base is None:
        mistakes.append(Problem(f"{path}.base", "missing", "the reward rate without a nudge"))
    _require_same(f"{path}.effects", set(leg.effects), set(stage.nudges), mistakes)
    mistakes += _slope_mistakes(f"{path}.", leg.base_slopes, leg.slopes, stage)
    mistakes += _context_mistakes(f"{path}.contexts", leg.contexts, stage)
    spoken = {name for name, feature in stage.features.items() if feature.type != "category"}
    _require_known(f"{path}.features", set(leg.features), spoken, mistakes)
    for part, lists in (("effects", leg.effects), ("features", leg.features)):
        for key, values in lists.items():
            if len(values) != personas:
                fix = "in the order in which personas are declared"
                mistakes.append(Problem(f"{path}.{part}.{key}", f"{len(values)} for {personas} personas", fix))
    return mistakes


def _slope_mistakes(path: str, base: Slopes, slopes: dict[str, Slopes], stage: Stage) -> list[Problem]:
    """Mistakes of slopes whose tables are at `path`, "" or with a dot at its end."""
    mistakes: list[Problem] = []
    for nudge in slopes:
        _require_known(f"{path}slopes.{nudge}", {nudge}, set(stage.nudges), mistakes)
    for at, own in ((f"{path}base_slopes", base), *((f"{path}slopes.{nudge}", own) for nudge, own in slopes.items())):
        _require_known(at, set(own), set(stage.features), mistakes)
        for name, slope in own.items():
            declared = stage.features.get(name)
            if declared is None:
                continue
            if (declared.type == "category") != isinstance(slope, dict):
                shape = "{ value = logits, … }" if declared.type == "category" else "one number of logits"
                mistakes.append(Problem(f"{at}.{name}", f"{name} is a {declared.type}", f"give {shape}"))
            elif isinstance(slope, dict):
                _require_known(f"{at}.{name}", set(slope), set(declared.values), mistakes)
    return mistakes


def _context_mistakes(path: str, contexts: Contexts, stage: Stage) -> list[Problem]:
    mistakes: list[Problem] = []
    if not contexts:
        return mistakes
    _require_same(path, set(contexts), set(stage.features), mistakes)
    if len({len(column) for column in contexts.values()}) > 1 or not next(iter(contexts.values())):
        mistakes.append(Problem(path, "columns of different lengths, or empty ones", "a value for each visit"))
    for name, column in contexts.items():
        declared = stage.features.get(name)
        if declared is not None and (wrong := [v for v in column if not _is_value(declared, v)]):
            mistakes.append(
                Problem(f"{path}.{name}", f"{wrong[0]!r} is no {declared.type} that is declared", "mend it")
            )
    return mistakes


def _is_value(declared: Feature, value: bool | float | str) -> bool:
    if declared.type == "category":
        return value in declared.values
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number if declared.type == "number" else isinstance(value, bool)


def _raise_mistakes(scenario: Scenario, mistakes: list[Problem]) -> None:
    if mistakes:
        raise CatalogueError(f"scenario {scenario.app}", mistakes)


def _require_same(path: str, given: set[str], wanted: set[str], mistakes: list[Problem]) -> None:
    mistakes.extend(Problem(f"{path}.{name}", "missing", "the stage declares it") for name in sorted(wanted - given))
    _require_known(path, given, wanted, mistakes)


def _require_known(path: str, given: set[str], wanted: set[str], mistakes: list[Problem]) -> None:
    mistakes.extend(Problem(f"{path}.{name}", "unknown", closest(name, wanted)) for name in sorted(given - wanted))
