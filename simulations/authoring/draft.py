"""Draft of a scenario for any catalogue: commented TOML that runs as it is, to be corrected by who knows the app.

Numbers come from the catalogue where it has them (delays, prior rates, kinds of evidence, coupons); all others are
assumptions in the range of field studies, and each line says so.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from bandit.catalogue import durations
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Catalogue, Feature, Reward, Stage
from bandit.errors import InvalidRequest, Problem

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASE = 0.10  # reward rate without a nudge where the catalogue declares none
_DAY = 24.0  # hours

_PERSONAS = (  # name, share, intent, factor of every effect, position of every number, what it is
    ("keen", 0.25, 1.0, 0.3, 0.35, "would come anyway: what is given to them is given away"),
    ("undecided", 0.45, 0.0, 1.0, 0.50, "whom a nudge may move"),
    ("passing", 0.30, -1.2, 0.5, 0.65, "far from a decision"),
)
_EFFECTS = (("discount", 0.5), ("coupon", 0.5), ("bonus", 0.35), ("trial", 0.35), ("guarantee", 0.25))
_EFFECT = 0.2  # logits that a nudge of another type adds for whom it moves most


def draft(catalogue: Catalogue, stage: str | None = None, source: str = "my.toml") -> str:
    """TOML text of a scenario for a catalogue, with a comment at every value. It passes `checks.checked`, and runs at
    once with `journey-bandit simulate`.

    `stage`: the rich one, described in full; by default the one with most nudges. `source`: the catalogue's file, for
    comments. Raises InvalidRequest if there is no such stage, or none whose nudges are declared.
    """
    able = {name: one for name, one in catalogue.stages.items() if not one.has_request_actions}
    if not able:
        fix = "declare a stage with nudges; actions that come with requests cannot be simulated"
        raise InvalidRequest(Problem("stages", "no stage declares its nudges", fix))
    if stage is not None and stage not in able:
        raise InvalidRequest(Problem("stage", f"{stage!r} is none that can be simulated", closest(stage, able)))
    rich = stage or max(able, key=lambda name: len(able[name].nudges))
    lines = [*_head(catalogue, rich, able[rich], source), *_personas(able[rich])]
    lines += [*_delays(able[rich]), *_proof(able[rich], "[proof]"), *_dynamics(able[rich])]
    if len(able) == len(catalogue.stages):
        lines += _journey(able, rich)
    else:
        left = ", ".join(name for name in catalogue.stages if name not in able)
        lines += ["", f"# No journey over all stages: the actions of {left} come with requests."]
        lines += _only_leg(rich, able[rich])
    return "\n".join(lines) + "\n"


def _head(catalogue: Catalogue, name: str, stage: Stage, source: str) -> Iterator[str]:
    yield f"# Scenario for {source}: who uses the app, and what each nudge does to them. A draft: every number below is"
    yield "# assumed until you put yours. Each field, its unit and its default: docs/reference/scenario.md."
    yield "# journey-bandit scenario check THIS_FILE --app " + source
    yield "# journey-bandit simulate --app " + source + " --scenario THIS_FILE"
    yield f"app = {_text(catalogue.app)} # as in the catalogue"
    yield f"stage = {_text(name)} # the stage described in full here; the others are in [journey]"
    yield from _base(stage)
    yield "people_per_day = 600 # new people a day in a live run (`simulate --url`)"
    yield "spread = 0.8 # how far people's numbers lie from those of their persona: sd in logits of the position"
    yield "correlation = 0.2 # of any two numbers of a person, 0 to 1 (below 1)"
    yield "user_sd = 0.5 # what sets a person apart from the persona, for life: sd in logits"
    yield "season = 0.1 # logits: amplitude of the week"
    if stage.reward.default != 0.0:
        yield f"# The catalogue counts silence as {stage.reward.default:g}; a simulation counts it as 0."
    yield "# hesitation = { dwell = FEATURE } would make a number follow from how much a person hesitates"


def _base(stage: Stage) -> Iterator[str]:
    declared = getattr(stage.policy, "prior_mean", None)
    is_declared = isinstance(declared, float) and 0.0 < declared < 1.0 and _has_prior(stage)
    base = declared if is_declared else _BASE
    why = "the catalogue's prior_mean" if is_declared else "assumed"
    what = f" ({_comment(stage.reward.description)})" if stage.reward.description else ""
    yield f"base = {base:g} # rate of rewards{what} at visits without a nudge, above 0, below 1; {why}"


def _has_prior(stage: Stage) -> bool:
    """Whether the catalogue changed the rate from the policy's own default."""
    fields = {field.name: field.default for field in msgspec.structs.fields(type(stage.policy))}
    return bool(getattr(stage.policy, "prior_mean", None) != fields.get("prior_mean"))


def _personas(stage: Stage) -> Iterator[str]:
    yield ""
    yield "# Personas: kinds of people, which the service never sees. weight: share of all people, 1 in sum."
    yield "# intent: logits above the average person. effects: logits that a nudge adds (0.1 is about a tenth more"
    yield "# rewards where they are rare; below 0 it harms). features: of a number, the median of its position in"
    yield "# its declared range, 0 (min) to 1 (max); of a boolean, the share with true; of a category, shares."
    for name, weight, intent, factor, at, what in _PERSONAS:
        yield ""
        yield f"[personas.{name}] # {what}"
        yield f"weight = {weight:g}"
        yield f"intent = {intent:g}"
        yield f"[personas.{name}.effects] # logits"
        for nudge, declared in stage.nudges.items():
            yield f"{_key(nudge)} = {factor * _effect(declared.type, nudge):.2g} # {_comment(declared.type)}"
        yield f"[personas.{name}.features]"
        for feature, known in stage.features.items():
            yield from _feature(feature, known, at)


def _effect(*words: str) -> float:
    said = " ".join(words).lower()
    return next((logits for word, logits in _EFFECTS if word in said), _EFFECT)


def _feature(name: str, feature: Feature, at: float) -> Iterator[str]:
    if feature.type == "category":
        share = 1.0 / len(feature.values)
        shares = ", ".join(f"{_key(value)} = {share:.4g}" for value in feature.values[:-1])
        yield f"{_key(name)} = {{ {shares} }} # shares; the rest is {_comment(feature.values[-1])}"
    elif feature.type == "boolean":
        yield f"{_key(name)} = {at:g} # share with true"
    else:
        scale = ", log scale" if feature.scale == "log" else ""
        yield f"{_key(name)} = {at:g} # position between {feature.min:g} and {feature.max:g}{scale}"


def _delays(stage: Stage) -> Iterator[str]:
    hours, why = delay_hours(stage.reward)
    yield ""
    yield f"[delay_hours] # mean hours from the decision to the reward, by arm; {why}. Window: {stage.reward.window}"
    for arm in stage.arms:
        yield f"{_key(arm)} = {hours:.3g}"


def delay_hours(reward: Reward) -> tuple[float, str]:
    """Mean hours to a reward of a draft, and where they come from: what the catalogue declares, else a sixth of the
    window, a day at most.
    """
    if reward.delay is not None and not reward.waits:
        return durations.seconds(reward.delay) / 3600.0, "the catalogue's delay"
    return min(reward.seconds / 6.0 / 3600.0, _DAY), "assumed, a sixth of the window, a day at most"


def _proof(stage: Stage, head: str) -> Iterator[str]:
    kinds = sorted({nudge.evidence.kind for nudge in stage.nudges.values() if nudge.evidence})
    if kinds:
        yield ""
        yield f"{head} # share of visits at which the app can prove the claim; assumed"
        yield from (f"{kind} = 0.5" for kind in kinds)


def _dynamics(stage: Stage) -> Iterator[str]:
    coupons = [name for name, nudge in stage.nudges.items() if nudge.cost_when_rewarded > 0.0]
    yield ""
    yield "[fatigue] # what nudges do to later visits; assumed"
    yield "keeps = 0.85 # share of the fatigue F that is left a day later; each nudge adds 1"
    yield "tires = 0.02 # logits that one recent nudge takes from every later reward"
    yield "dulls = 0.1 # a nudge's effect is e^(-dulls * F) of what it was"
    yield "opt_out = -5.0 # logits of switching nudges off after one is shown: -5 is 0.7 %"
    yield "leaves = 0.1 # share of those who then leave the app"
    yield ""
    yield "[novelty] # effects wear off after launch: rest + (1 - rest) * e^(-t / days)"
    yield "rest = 1.0 # 1: they do not"
    yield "days = 30"
    yield ""
    yield "[drift] # effects that move by themselves"
    yield 'kind = "none" # or "ou" (they wander) or "redraw" (all change on one day)'
    yield ""
    yield "[coupons] # nudges that some people learn to wait for; who does: `harvests` of a persona (0 here)"
    yield f"arms = [{', '.join(map(_text, coupons))}]"
    yield "depth = 0.5 # logits that a trained harvester loses where no coupon is shown"
    yield ""
    yield "[visits]"
    yield "gap_days = 3.0 # median days between two visits of a person"
    yield "gap_sd = 0.8 # sd of their logarithm"
    yield "weekly = [1, 1, 1, 1, 1, 1, 1] # first visits by weekday, Monday first"
    yield "pull_forward = 0.0 # logits that the visit after a redeemed coupon has less"


def _journey(stages: dict[str, Stage], rich: str) -> Iterator[str]:
    names = list(stages)
    yield ""
    yield "# The journey, for `simulate --journey`: where people go from each stage. then: after a reward."
    yield "# otherwise: shares whose next visit is at a stage after silence; what is left of 1 leaves the app."
    yield "# Lists are in the order of the personas."
    for place, (name, stage) in enumerate(stages.items()):
        onward = names[min(place + 1, len(names) - 1)]
        yield ""
        yield f"[journey.{_key(name)}]"
        if name != rich:
            yield from _base(stage)
            yield f"effects = {{ {', '.join(_list(n, _logits(n, d.type)) for n, d in stage.nudges.items())} }}"
            spoken = [n for n, feature in stage.features.items() if feature.type != "category"]
            yield f"features = {{ {', '.join(_list(n, [p[4] for p in _PERSONAS]) for n in spoken)} }}"
            yield f"delay_hours = {delay_hours(stage.reward)[0]:.3g}"
            kinds = sorted({nudge.evidence.kind for nudge in stage.nudges.values() if nudge.evidence})
            if kinds:
                yield f"proof = {{ {', '.join(f'{kind} = 0.5' for kind in kinds)} }}"
        yield from _amount(stage.reward)
        yield f"then = {_text(onward)}"
        if onward == name:
            yield "rests = true # a rewarded person comes again after the usual gap"
            yield "stays = 1.0 # share of the rewarded who come again at all"
        others = {name: 0.5} | ({names[place - 1]: 0.2} if place else {})
        yield f"otherwise = {{ {', '.join(f'{_key(n)} = {p:g}' for n, p in others.items())} }}"


def _only_leg(rich: str, stage: Stage) -> Iterator[str]:
    if amount := list(_amount(stage.reward)):
        yield from ("", f"[journey.{_key(rich)}]", *amount, f"then = {_text(rich)}", "otherwise = {}")


def _amount(reward: Reward) -> Iterator[str]:
    if reward.kind != "binary":
        usual = reward.max / 4.0 if reward.kind == "revenue" else max(reward.max / 2.0, reward.min)
        yield f"amount = {usual:g} # what a reward is, between {reward.min:g} and {reward.max:g}; assumed"


def _logits(nudge: str, kind: str) -> list[float]:
    return [round(persona[3] * _effect(kind, nudge), 3) for persona in _PERSONAS]


def _list(name: str, values: list[float]) -> str:
    return f"{_key(name)} = [{', '.join(f'{value:g}' for value in values)}]"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: Any) -> str:
    """A basic string of TOML; JSON's escapes are among its own."""
    return msgspec.json.encode(str(value)).decode()


def _comment(text: str) -> str:
    return " ".join(text.split())
