"""Commands `journey-bandit evaluate obd` and `hillstrom`: real data, where the answer is known or should be "no
difference".
"""

from pathlib import Path

import click
import numpy as np

from bandit import features
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from experiments.data import obd
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.inference import intervals
from experiments.ope import evaluate as core
from experiments.ope import train_test_split
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Estimate
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from journey_bandit import console
from journey_bandit.evaluation import presentation
from journey_bandit.evaluation.presentation import DisplayOptions
from simulations.datasets import hillstrom as data

_REWARDS = RewardRange(0.0, 1.0)
_FORCE = click.option("--force", is_flag=True, help="Print estimates that would be refused, labelled.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command("obd")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--campaign", default="men", show_default=True)
@_FORCE
@_JSON
def open_bandit(folder: Path, campaign: str, force: bool, as_json: bool) -> None:
    """The Open Bandit Dataset: each of its two policies on the other's log, beside what it really earned.

    The model of rewards is fitted here, so that estimates that use it differ from published ones.
    """
    logs = {policy: obd.read(folder, policy, campaign) for policy in obd.POLICIES}
    positions = 1 + max(int(log.position.max(initial=0)) for log in logs.values() if log.position is not None)
    thompson = obd.bts(folder, campaign, positions)
    items = thompson.probabilities.shape[1]
    behaviours = {"random": obd.uniform(items, positions), "bts": thompson}
    logs = {p: log._replace(eligible=np.ones((len(log.reward), items), dtype=np.bool_)) for p, log in logs.items()}
    logs["random"] = logs["random"]._replace(propensities=behaviours["random"](logs["random"]))
    directions, everything = [], []
    for logged, asked in (("random", "bts"), ("bts", "random")):
        ask = EvaluationConfig((EvaluationPolicy(asked, behaviours[asked]),), rewards=_REWARDS, force=force)
        found = core.evaluate([chunked(logs[logged])], ask)
        everything += found
        earned = intervals.rate(float(logs[asked].reward.sum()), len(logs[asked].reward))
        if as_json:
            body = {"logged": logged, "on_policy": {"value": earned.value, "interval": [earned.low, earned.high]}}
            directions.append({**body, **core.report(found, ask)})
            continue
        presentation.display(DisplayOptions(f"{asked} on the log of {logged}"), found, ask)
        really = presentation.cells(Estimate(earned.value, (earned.low, earned.high)))
        console.out.print(f"on its own log, {asked} earned {really[0]} {really[1]}")
    if as_json:
        presentation.write({"campaign": campaign, "directions": directions})
    presentation.leave(everything, ask)


@click.command()
@click.option("--seed", default=100, show_default=True, help="Which half teaches.")
@_FORCE
@_JSON
def hillstrom(seed: int, force: bool, as_json: bool) -> None:
    """32,000 real customers, three e-mail arms at random: a policy learned on half of them, evaluated on the others.

    It is compared, customer by customer, with the best fixed arm of the half that taught it.
    """
    stage = parse(read_shipped(data.APP)).stage(data.STAGE)
    learned = train_test_split.learn(data.APP, data.STAGE, stage, customers(stage), seed)
    best = f"always {stage.arms[learned.best]}"
    ask = EvaluationConfig(
        (learned.target(),),
        (EvaluationPolicy(best, FixedArm(learned.best)), EvaluationPolicy("none", FixedArm(0))),
        rewards=_REWARDS,
    )
    ask = ask._replace(heaviest=1.0 / data.PROPENSITY, force=force)
    found = core.evaluate([chunked(learned.rounds)], ask)
    gain = found[0].contrasts.get(best)
    verdict = f"over {best}: {verdict_of(gain) if gain else 'the log cannot say'}"
    if as_json:
        presentation.write(
            {**core.report(found, ask), "best_fixed": best, "taught": learned.training_rounds, "verdict": verdict}
        )
    else:
        rest = len(learned.rounds.reward)
        title = f"visit rate, learned on {learned.training_rounds:,} customers, evaluated on {rest:,}"
        presentation.display(DisplayOptions(title, "rate"), found, ask)
        console.out.print(verdict)
    presentation.leave(found, ask)


def customers(stage: Stage) -> LoggedRounds:
    """Logged rounds of the Hillstrom experiment, each arm drawn with probability 1/3; contexts as
    `stage` encodes them.
    """
    people, layout = data.load(), features.schema(stage.features)
    action = np.array([stage.arms.index(arm) for arm in people.sent], dtype=np.intp)
    n, k = len(action), len(stage.arms)
    return LoggedRounds(
        action=action,
        reward=people.visit,
        pscore=np.full(n, data.PROPENSITY),
        x=np.array([features.encode(layout, context).x for context in people.contexts]),
        propensities=np.full((n, k), data.PROPENSITY),
    )


def verdict_of(gain: Estimate) -> str:
    """Verdict on a difference of two rates, in percentage points and in words: what its interval allows to say."""
    low, high = gain.interval
    sure = "better" if low > 0.0 else "worse" if high < 0.0 else "not distinguishable from zero"
    return f"{100 * gain.value:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]: {sure}"
