"""Semantic checks of a catalogue: what is wrong with the meaning of tables whose form is right.

`bandit.catalogue.loading.parse` calls `check` for every struct that could be decoded, and `check_names` for the raw
tables. Names that must lead somewhere are checked by `references`, single limits by `limits`. Checks yield `Problem`s
(path, problem, fix) and raise nothing, so that all mistakes are found in one pass.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bandit.catalogue import durations, limits, references
from bandit.catalogue.content import checks as content_checks
from bandit.catalogue.content.model import PagesRule
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import NONE, Catalogue, Feature, Loop, Nudge, Reward, Stage
from bandit.errors import Problem
from bandit.policies import Beta, Fixed, Logistic

_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")


def check(struct: msgspec.Struct, path: str) -> Iterator[Problem]:
    """Problems in the meaning of one decoded struct, of whatever type; `path` is where it stands. Called for inner
    structs first.
    """
    match struct:
        case Feature():
            yield from _check_feature(path, struct)
        case Reward():
            yield from _check_reward(path, struct)
        case Stage():
            yield from _check_stage(path, struct)
        case Nudge():
            yield from _check_content(path, struct)
        case PagesRule():
            yield from content_checks.check_pages(path, struct)
        case Catalogue():
            yield from content_checks.check_locale("locale", struct.locale)
            yield from _check_images(struct)
            yield from references.check(struct.journey, {n: _refers(s) for n, s in struct.stages.items()})
            yield from _check_rates(struct)
            yield from _check_retention(struct)
            yield from _check_rewards_of(struct)
            yield from references.exclusive(struct.exclusive, {n: _refers(s) for n, s in struct.stages.items()})
        case _:
            yield from limits.check(path, struct)


def _check_rates(catalogue: Catalogue) -> Iterator[Problem]:
    for code in catalogue.rates:
        if code != code.upper() or len(code) > 8:
            yield Problem(f"rates.{code}", "not the code of a currency", f"capitals, e.g. {code.upper()[:8]}")
        elif code == catalogue.currency.upper():
            yield Problem(f"rates.{code}", "this is the app's own currency", "remove it")


def _check_rewards_of(catalogue: Catalogue) -> Iterator[Problem]:
    """Where outcomes have to bring a token, none may come by a way that has no field for it."""
    if catalogue.rewards_of != "decider":
        return
    for name, stage in catalogue.stages.items():
        for event in stage.outcomes:
            problem = 'events carry no token, and rewards_of = "decider" wants one of each outcome'
            fix = "remove it and report by /v1/outcomes, or remove rewards_of"
            yield Problem(f"stages.{name}.outcomes.{event}", problem, fix)
        if stage.has_request_actions:
            problem = 'rewards of Personalizer carry no token, and rewards_of = "decider" wants one'
            yield Problem(f"stages.{name}.policy", problem, "choose another policy, or remove rewards_of")


def _check_retention(catalogue: Catalogue) -> Iterator[Problem]:
    """A person is erased when what was decided has been learned, not before."""
    if catalogue.retention is None:
        return
    mistakes = list(durations.check("retention", catalogue.retention, words="; left out, nobody is erased for it"))
    yield from mistakes
    usable = [(name, s.reward) for name, s in catalogue.stages.items() if not list(_check_times("", s.reward))]
    if mistakes or not usable:
        return
    name, longest = max(usable, key=lambda one: one[1].seconds_and_grace)
    if durations.seconds(catalogue.retention) < longest.seconds_and_grace:
        grace = f" and its grace of {longest.grace}" if isinstance(longest.grace, str) else ""
        problem = f"rewards of stage {name} come for longer: its window of {longest.window}{grace}"
        yield Problem("retention", problem, f"{durations.text(longest.seconds_and_grace)} or longer, or leave it out")


def _check_content(path: str, nudge: Nudge) -> Iterator[Problem]:
    kind = nudge.evidence.kind if nudge.evidence else None
    yield from content_checks.check_payload(f"{path}.payload", nudge.payload, kind)
    if nudge.content is not msgspec.UNSET:
        yield from content_checks.check_content(
            f"{path}.content", nudge.content, format_=nudge.format, payload=nudge.payload, evidence=kind
        )


def _check_images(catalogue: Catalogue) -> Iterator[Problem]:
    """Pictures of all nudges: they come from the app's folder or from a declared host."""
    for stage, declared in catalogue.stages.items():
        for name, nudge in declared.nudges.items():
            if nudge.content is not msgspec.UNSET:
                path = f"stages.{stage}.nudges.{name}.content"
                yield from content_checks.check_image(path, nudge.content, catalogue.pages.image_hosts)


def _refers(stage: Stage) -> references.Refers:
    types = {name: nudge.type for name, nudge in stage.nudges.items()}
    continuous = stage.reward.kind == "continuous"
    features = {name: feature.type for name, feature in stage.features.items()}
    return references.Refers(types, features, continuous, stage.moments, stage.derived, stage.outcomes)


def check_names(raw: dict[str, Any]) -> Iterator[Problem]:
    """Problems of names and of missing tables, from the raw TOML. Names are keys: they are checked where they stand,
    whatever is wrong with the tables under them.
    """
    named = [("app", raw["app"])] if isinstance(raw.get("app"), str) else []
    if raw.get("stages") == {}:
        yield Problem("stages", "no stage declared", "add a table [stages.checkout]")
    named += [(f"journey.events.{name}", name) for name in _table(_table(raw, "journey"), "events")]
    for stage, table in _table(raw, "stages").items():
        named.append((f"stages.{stage}", stage))
        policy = _table(table, "policy").get("name") if isinstance(table, dict) else None
        missing = [part for part in ("features", "nudges") if isinstance(table, dict) and part not in table]
        if policy != "shared":
            yield from (Problem(f"stages.{stage}.{part}", "missing", "add it: a table") for part in missing)
        for part in ("features", "nudges", "moments"):
            named += [(f"stages.{stage}.{part}.{name}", name) for name in _table(table, part)]
        if NONE in _table(table, "nudges"):
            yield Problem(f"stages.{stage}.nudges.none", "`none` is there already", "remove it or rename it")
    fix = "lower-case letters, digits and _, starting with a letter"
    yield from (Problem(path, f"{name!r} is not a usable id", fix) for path, name in named if not _ID.fullmatch(name))


def _table(value: Any, key: str) -> dict[str, Any]:
    """The table at `key` of a table; empty if either is none."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _check_dynamic(path: str, stage: Stage) -> Iterator[Problem]:
    """What cannot be declared for actions that come with the request."""
    usual = Stage(reward=stage.reward)
    parts = "features", "nudges", "moments", "derived", "outcomes", "limits", "price", "top_two", "ramp"
    for part in (*parts, "contribution", "guardrail", "alarms"):
        if getattr(stage, part) != getattr(usual, part):
            problem = "the actions of this stage come with each request, from people it does not know"
            yield Problem(f"{path}.{part}", problem, "remove it, or choose another policy")
    if stage.reward.kind == "revenue":
        yield Problem(f"{path}.reward.kind", "shared learns no amounts", 'kind = "continuous"')
    yield from durations.check(f"{path}.loop.retry", stage.loop.retry, zero=True)
    if stage.loop.rewards == "sum" and stage.reward.settle == "reward":
        yield Problem(f"{path}.loop.rewards", "the first reward settles here", 'settle = "window"')


def _check_stage(path: str, stage: Stage) -> Iterator[Problem]:
    if stage.live_ramp is not None:
        yield Problem(f"{path}.live_ramp", "operators set it while the service runs", "declare `ramp`")
    if stage.has_request_actions:
        yield from _check_dynamic(path, stage)
    elif stage.loop != Loop():
        yield Problem(f"{path}.loop", "for actions that come with the request", 'policy = { name = "shared" }')
    for key, nudge in stage.nudges.items():
        if nudge.cost_when_rewarded >= stage.reward.value:
            fix = f"below the reward's value of {stage.reward.value:g}"
            yield Problem(f"{path}.nudges.{key}.cost_when_rewarded", "a reward would never pay", fix)
        yield from _check_budget(f"{path}.nudges.{key}", stage, nudge)
    if stage.common_floor * len(stage.arms) >= 1.0:
        fix = f"below {1 / len(stage.arms):.3g} for {len(stage.arms)} arms (0.01 is usual)"
        yield Problem(f"{path}.floor", "the floors of all arms reach 1", fix)
    if stage.loss != "none" and not is_percentage(stage.loss):
        problem = f"{stage.loss!r} is no percentage above 0 and up to 100"
        yield Problem(
            f"{path}.loss", problem, 'loss = "2%" of what a month earns without nudges, or "none" for no bound'
        )
    if isinstance(stage.policy, Beta | Logistic) and stage.reward.kind != "binary":
        name = stage.policy.__struct_config__.tag
        fix = 'use name = "hierarchical" or "linear"'
        yield Problem(f"{path}.policy.name", f"{name} needs a binary reward", fix)
    if isinstance(stage.policy, Fixed) and stage.policy.arm not in stage.arms:
        yield Problem(f"{path}.policy.arm", "no such arm", closest(stage.policy.arm, stage.arms))


def is_percentage(text: str) -> bool:
    """Whether a text is a number in (0, 100] with a percent sign."""
    return re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?%", text) is not None and 0.0 < float(text[:-1]) <= 100.0


def check_bounds(raw: dict[str, Any], stages: Mapping[str, Stage]) -> Iterator[Problem]:
    """Problems of losses that are declared, by the raw TOML, in stages whose policy has no loss account."""
    for name, stage in stages.items():
        table = _table(_table(raw, "stages"), name)
        for field in ("loss", "loss_rule"):
            if field in table and is_percentage(stage.loss) and stage.loss_share is None:
                here = f"`{stage.policy.__struct_config__.tag}` and a {stage.reward.kind} reward"
                problem = (
                    f"bounds nothing: a loss account needs the policy `centred` and a binary reward; here it is {here}"
                )
                fix = 'remove it, write loss = "none", or declare policy = { name = "centred" }'
                yield Problem(f"stages.{name}.{field}", problem, fix)


def _check_feature(path: str, feature: Feature) -> Iterator[Problem]:
    default = feature.default
    if feature.type == "number":
        if feature.min is None or feature.max is None or not feature.min < feature.max:
            yield Problem(path, "a number needs min < max", "declare both; values outside are clipped")
        elif isinstance(default, bool | str) or not feature.min <= default <= feature.max:
            fix = f"a number in [{feature.min:g}, {feature.max:g}]"
            yield Problem(f"{path}.default", f"{default!r} is not in the declared range", fix)
    if feature.type == "boolean" and not isinstance(default, bool):
        yield Problem(f"{path}.default", f"{default!r} is not a boolean", "write true or false")
    if feature.type == "category":
        if len(feature.values) < 2 or len(set(feature.values)) < len(feature.values):
            yield Problem(f"{path}.values", "needs two or more distinct values", "list them all")
        elif default not in feature.values:
            fix = closest(str(default), feature.values)
            yield Problem(f"{path}.default", f"{default!r} is not one of the values", fix)
    if feature.type != "number" and (feature.min, feature.max, feature.scale) != (None, None, "linear"):
        yield Problem(path, "min, max and scale are for numbers", "remove them")
    if feature.type != "category" and feature.values:
        yield Problem(f"{path}.values", "values are for categories", "remove them")


def _check_times(path: str, reward: Reward) -> Iterator[Problem]:
    yield from durations.check(f"{path}.window", reward.window)
    if isinstance(reward.grace, str):
        yield from durations.check(f"{path}.grace", reward.grace)


def _check_reward(path: str, reward: Reward) -> Iterator[Problem]:
    yield from _check_times(path, reward)
    if reward.delay is not None and not reward.waits:
        yield from durations.check(f"{path}.delay", reward.delay, words='; or "window": wait for windows to end')
    if not reward.min < reward.max:
        yield Problem(f"{path}.max", "the range is empty", "min < max")
    elif reward.max - reward.min < 1e-9 * max(abs(reward.min), abs(reward.max), 1.0):
        yield Problem(f"{path}.max", "the range is too narrow for its numbers", "scale the reward, or widen the range")
    elif not reward.min <= reward.default <= reward.max:
        fix = f"a number in [{reward.min:g}, {reward.max:g}]"
        yield Problem(f"{path}.default", "outside the reward's range", fix)
    if reward.kind == "revenue" and (reward.min, reward.default) != (0.0, 0.0):
        yield Problem(f"{path}.kind", "revenue starts at 0", 'remove min and default, or kind = "continuous"')
    if reward.kind == "binary" and (reward.min, reward.max) != (0.0, 1.0):
        fix = 'remove min and max, or kind = "continuous"'
        yield Problem(f"{path}.kind", "a binary reward is 0 or 1", fix)


def _check_budget(path: str, stage: Stage, nudge: Nudge) -> Iterator[Problem]:
    """A budget needs something to spend, and must reach for one."""
    once = nudge.spending(stage.reward.max)
    if nudge.budget and once == 0.0:
        yield Problem(f"{path}.budget", "this nudge costs nothing", "declare cost or cost_when_rewarded, or remove it")
    elif nudge.budget and nudge.budget.amount < once:
        yield Problem(f"{path}.budget.amount", f"showing it once can cost {once:g}", f"{once:g} or more")
