"""Guardrails: which nudges may be shown now, and why not the others. They run before propensities, so that logged
probabilities account for them.

Times are µs since 1970; a `scale` below 1 compresses the clock for simulations and demos.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.catalogue import durations
from bandit.catalogue.decoding import closest
from bandit.catalogue.limits import Limits, QuietHours
from bandit.catalogue.model import NONE, Catalogue, Nudge, Stage
from bandit.errors import InvalidRequest, Problem

DAY = 86_400_000_000
"""A day in microseconds."""

DECLINED = "declined: this user does not want to see it again"
"""Reason for which a nudge is excluded after \"don't show this again\"."""

NO_CONSENT = "no consent"
"""How the reason begins for which a nudge is excluded where a consent is missing."""

_NO_LIMITS = Limits()
_SKEW = 300_000_000  # µs that a client's clock may be ahead of ours


class ClaimEvidence(msgspec.Struct, frozen=True):
    """Evidence for claims that came with a request: units in `stock`, when the offer ends (`deadline`), and when both
    were looked up (`as_of`); times in µs since 1970, `as_of` None: just now.
    """

    stock: int | None = None
    deadline: int | None = None
    as_of: int | None = None


class Exposure(NamedTuple):
    """Exposure: a nudge that a user was given at `at` (µs). It counts before `until` (µs): one that waits for its
    activation may lapse.
    """

    at: int
    until: int


CapScope = tuple[str, str]
"""Where limits are declared: (stage, nudge), (stage, "") or ("", "") for the app."""


class LocalTime(NamedTuple):
    """Local time of a user: the minute of the day, 0 to 1439, and the IANA name of the time zone."""

    zone: str
    minute: int


class Circumstances(NamedTuple):
    """Circumstances that limits depend on, of one user at one instant; the caller looks them up
    (`api.decisions.sessions`).

    Fields: `shown`: this user's exposures by (stage, nudge). `everyone`: all users' exposures by scope, in its present
    period. `consent`: flags that the user gave. `abandoned`: when this user's abandoned visits ended, µs. `began`: when
    this visit began, µs, None if unknown. `minutes`: minute of the local day by timezone. `local`: the user's own time,
    if known. `declined`: nudges that the user does not want to see again, as "stage.nudge".
    """

    shown: Mapping[CapScope, Sequence[Exposure]]
    everyone: Mapping[CapScope, int]
    consent: Collection[str]
    abandoned: Sequence[int]  # when this user's abandoned visits ended
    began: int | None  # when this user's visit began
    minutes: Mapping[str, int]
    local: LocalTime | None = None
    declined: Collection[str] = ()


class Eligibility(NamedTuple):
    """Eligibility of a stage's arms: `mask` (k,) in the stage's order, and in `excluded` the reason of each exclusion
    by nudge.
    """

    mask: NDArray[np.bool_]
    excluded: dict[str, str]


def eligible(
    stage: Stage,
    *,
    holdout: bool,
    proof: ClaimEvidence,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    refused: Mapping[str, str],
    now: int,
    scale: float = 1.0,
) -> Eligibility:
    """Eligibility of the stage's arms for one request; the engine calls it first for every decision. No nudge is always
    eligible.

    `holdout`: the user is in the control group, so only no nudge is. `proof`: evidence that came with the request.
    `include`, `exclude`: the request's lists. `refused`: nudges that may not be shown for a reason from outside, such
    as an operator's pause, a budget or a cap; it is given before what the request says. `now` in µs. Durations run on a
    clock compressed by `scale`.

    Raises InvalidRequest if a list names an unknown nudge, or excludes `none`.
    """
    _check_lists(stage, include, exclude)
    excluded = {}
    for name, nudge in stage.nudges.items():
        reason = (
            "holdout: this user is in the control group"
            if holdout
            else "paused in the catalogue"
            if nudge.paused
            else refused[name]
            if name in refused
            else "not in the request's include list"
            if include is not None and name not in include
            else "in the request's exclude list"
            if name in exclude
            else unproven(nudge, proof, now, scale)
        )
        if reason:
            excluded[name] = reason
    return Eligibility(np.array([arm not in excluded for arm in stage.arms]), excluded)


def unproven(nudge: Nudge, proof: ClaimEvidence, now: int, scale: float) -> str | None:
    """Reason why the nudge's claim cannot be made at `now` (µs), or None: evidence is missing, too old, or does not
    bear it out.
    """
    if nudge.evidence is None:
        return None
    if nudge.evidence.fresh and proof.as_of is not None:
        age, oldest = now - proof.as_of, durations.micro(nudge.evidence.fresh, scale)
        if not -_SKEW <= age <= oldest:
            return f"not fresh: the evidence is from {age / 1e6:.0f} s ago, the claim needs {nudge.evidence.fresh}"
    if nudge.evidence.kind == "stock":
        most = nudge.evidence.at_most
        if proof.stock is None:
            return "no evidence: send evidence.stock, the units left"
        if most is not None and not 1 <= proof.stock <= most:
            return f"not true: stock is {proof.stock}, the claim needs 1 to {most}"
        return None
    if proof.deadline is None:
        return "no evidence: send evidence.deadline, when the offer ends"
    return None if proof.deadline > now else "not true: the deadline has passed"


def refused(catalogue: Catalogue, stage: str, now: int, around: Circumstances, scale: float = 1.0) -> dict[str, str]:
    """Nudges of the stage that limits, consents and rules of the app do not allow at `now` (µs), each with its reason
    in words.
    """
    look = _Look(catalogue, now, around, scale)
    declared = catalogue.stages[stage]
    reasons = {}
    shared = look.exceeded(catalogue.limits, ("", "")) or look.exceeded(declared.limits, (stage, ""))
    for name, nudge in declared.nudges.items():
        reason = look.unwanted(stage, name, nudge) or shared or look.exceeded(nudge.limits, (stage, name))
        if reason:
            reasons[name] = reason
    return reasons


class _Look(NamedTuple):
    """One user at one moment. Methods return a reason, or an empty text."""

    catalogue: Catalogue
    now: int
    around: Circumstances
    scale: float

    def unwanted(self, stage: str, name: str, nudge: Nudge) -> str:
        """Reasons that are about this nudge and not about how often."""
        if self.around.declined and f"{stage}.{name}" in self.around.declined:
            return DECLINED
        if nudge.consent:
            missing = [flag for flag in nudge.consent if flag not in self.around.consent]
            if missing:
                return f"{NO_CONSENT}: {', '.join(missing)}"
        for limits in (self.catalogue.limits, self.catalogue.stages[stage].limits, nudge.limits):
            if limits.quiet and self.quiet(limits.quiet, nudge.format):
                zone = self.around.local.zone if self.around.local else limits.quiet.timezone
                return f"quiet hours: {limits.quiet.begin} to {limits.quiet.end} {zone}"
        rule = nudge.abandoned
        if rule:
            count = sum(at > self.now - self.span(rule.within) for at in self.around.abandoned)
            if count > rule.most:
                return f"repeat abandoner: {count} visits abandoned in {rule.within}, at most {rule.most}"
        return self.exclusive(stage, name, nudge) if self.around.shown else ""

    def quiet(self, hours: QuietHours, format_: str) -> bool:
        own = self.around.local
        minute = own.minute if own else self.around.minutes[hours.timezone]
        return (not hours.formats or format_ in hours.formats) and hours.covers(minute)

    def exclusive(self, stage: str, name: str, nudge: Nudge) -> str:
        """Another of a group was shown."""
        for group in self.catalogue.exclusive:
            if not {nudge.type, f"{stage}.{name}"} & set(group.among):
                continue
            for (its_stage, its_name), shown in self.around.shown.items():
                other = self.nudge(its_stage, its_name)
                same = (its_stage, its_name) == (stage, name)
                if other is None or same or not {other.type, f"{its_stage}.{its_name}"} & set(group.among):
                    continue
                if any(at > self.now - self.span(group.within) for at in self.times(shown)):
                    return f"excluded by {its_stage}.{its_name}, shown within {group.within}"
        return ""

    def nudge(self, stage: str, name: str) -> Nudge | None:
        """None if the catalogue does not declare it any more."""
        return self.catalogue.stages[stage].nudges.get(name) if stage in self.catalogue.stages else None

    def exceeded(self, limits: Limits, place: CapScope) -> str:
        """A cap or a cool-down that is reached at the app, the stage or the nudge."""
        if limits == _NO_LIMITS:
            return ""
        own = self.reached(limits, place) if self.around.shown else ""
        if own:
            return own
        if limits.everyone and self.around.everyone.get(place, 0) >= limits.everyone.most:
            return f"cap: {limits.everyone.most} {_where(place)} for all users per {limits.everyone.per}"
        return ""

    def reached(self, limits: Limits, place: CapScope) -> str:
        """A cap or a cool-down of this user."""
        times = sorted(at for its, shown in self.around.shown.items() if _at(its, place) for at in self.times(shown))
        began = self.around.began
        visit = self.now - self.span(self.catalogue.journey.visit) if began is None else began - 1
        since = visit, self.now - round(DAY * self.scale), self.now - round(7 * DAY * self.scale), -1
        for per, most, start in zip(("visit", "day", "week", "user"), limits.of_one, since, strict=True):
            if most is not None and sum(at > start for at in times) >= most:
                return f"cap: {most} {_where(place)} per {per}"
        if limits.cool_down and times and times[-1] > self.now - self.span(limits.cool_down):
            return f"cool-down: {limits.cool_down} {_where(place)}"
        return ""

    def times(self, shown: Sequence[Exposure]) -> Iterator[int]:
        return (exposure.at for exposure in shown if self.now < exposure.until)

    def span(self, text: str) -> int:
        return durations.micro(text, self.scale)


def _where(place: CapScope) -> str:
    """Place of limits in words: the app, a stage, or one of its nudges."""
    return {0: "of the app", 1: f"of stage {place[0]}", 2: "of this nudge"}[sum(map(bool, place))]


def _at(shown: CapScope, place: CapScope) -> bool:
    """Whether an exposure falls under the limits declared at a place."""
    return place in (shown, (shown[0], ""), ("", ""))


def _check_lists(stage: Stage, include: Sequence[str] | None, exclude: Sequence[str]) -> None:
    problems = [
        Problem(f"{field}[{i}]", f"this stage has no nudge {name!r}", closest(name, stage.arms))
        for field, names in (("include", include or ()), ("exclude", exclude))
        for i, name in enumerate(names)
        if name not in stage.arms
    ]
    if NONE in exclude:
        fix = "leave it out; showing nothing is always possible"
        problems.append(Problem("exclude", "no nudge cannot be excluded", fix))
    if problems:
        raise InvalidRequest(*problems)
