"""App logs: the decisions of a stage as a twin is fitted to them, from a ledger or from a Parquet file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from api.stores.decision_log import DecisionRecord
from bandit import features
from bandit.arrays import Array, Mask
from bandit.catalogue.model import Catalogue, Reward, Stage
from bandit.errors import InvalidRequest, Problem
from bandit.guardrails import NO_CONSENT
from experiments.data import files
from experiments.data.rounds import LoggedRounds
from journey_bandit.workflows import ledger_log
from simulations.twin.app_log import AppLog


class StageLog(NamedTuple):
    """Log of one stage, with arms in the order of the catalogue. `dropped`: decisions for arms that the catalogue does
    not declare any more.
    """

    stage: str
    log: AppLog
    dropped: int = 0


def of_ledger(url: str, stage: str, declared: Stage) -> StageLog:
    """Log of a stage of a ledger, which a service may be running on. Raises what `ledger_log.open_log` raises, and
    InvalidRequest if the ledger holds contexts of other features than `declared`.
    """
    opened = ledger_log.open_log(url, stage)
    mine, theirs = (features.schema(spec.features).keys for spec in (declared, opened.spec))
    if mine != theirs:
        problem = f"the ledger was last served with other features of {stage}, or other ranges of them"
        raise InvalidRequest(Problem("app", problem, "give the catalogue that the service runs with"))
    chunks = list(opened.source()())
    if not chunks:
        raise InvalidRequest(Problem("store", f"no decision at {stage}", "fit to a ledger that has some"))
    records = list(opened.records())
    delay = np.array([_delay(found) for found in records])
    out = np.array([_out(found) for found in records], dtype=bool)
    return _of_rounds(stage, declared, opened.arms, _joined(chunks), delay, out, times_known=True)


def of_parquet(path: Path, catalogue: Catalogue) -> StageLog:
    """Log of a Parquet file that the simulator or an export wrote. It does not say when rewards came, nor who switched
    nudges off: whoever could be shown nothing is taken for that. Raises InvalidRequest for a file that cannot be used.
    """
    opened = files.open_log(path, {})
    if opened.meta is None:
        problem = f"{path} does not say which stage it is of"
        raise InvalidRequest(Problem("log", problem, "give a Parquet log that `simulate --log` wrote, or --store"))
    if opened.meta.app != catalogue.app:
        problem = f"{path} is of {opened.meta.app}, the catalogue of {catalogue.app}"
        raise InvalidRequest(Problem("app", problem, "give the catalogue of the app that was logged"))
    declared = catalogue.stage(opened.meta.stage)
    chunks = list(opened.source()())
    if not chunks:
        raise InvalidRequest(Problem("log", f"{path} has no decision", "fit to a log that has some"))
    rounds = _joined(chunks)
    needed = ("x", "propensities", "user", "at")
    if absent := [name for name in needed if getattr(rounds, name) is None]:
        raise InvalidRequest(Problem("log", f"{path} has no {', '.join(absent)}", "a fit needs them"))
    assert rounds.x is not None  # noqa: S101 - looked at above
    assert rounds.propensities is not None  # noqa: S101
    d = len(features.schema(declared.features).columns)
    if rounds.x.shape[1] != d:
        problem = f"{path} has {rounds.x.shape[1]} columns of x, {opened.meta.stage} has {d}"
        raise InvalidRequest(Problem("log", problem, "give the catalogue that it was made with"))
    held = rounds.holdout if rounds.holdout is not None else np.zeros(len(rounds.action), dtype=bool)
    out = ~held & ((rounds.propensities > 0.0).sum(axis=1) == 1)
    rounds = rounds._replace(eligible=rounds.propensities > 0.0, holdout=held)
    nothing = np.full(len(rounds.action), np.nan)
    return _of_rounds(opened.meta.stage, declared, opened.arms, rounds, nothing, out, times_known=False)


def _of_rounds(
    stage: str,
    declared: Stage,
    arms: tuple[str, ...],
    rounds: LoggedRounds,
    delay: Array,
    out: Mask,
    *,
    times_known: bool,
) -> StageLog:
    """Log with arms as the catalogue has them, in order of time. Raises InvalidRequest for rewards that the stage
    cannot have.
    """
    _check_rewards(stage, declared.reward, rounds.reward)
    x, may, user, at = rounds.x, rounds.eligible, rounds.user, rounds.at
    assert x is not None and may is not None and user is not None and at is not None  # noqa: PT018, S101 - callers looked
    place = {arm: a for a, arm in enumerate(declared.arms)}
    new = np.array([place.get(arm, -1) for arm in arms])
    arm = new[rounds.action]
    kept = np.flatnonzero(arm >= 0)
    kept = kept[np.argsort(at[kept], kind="stable")]
    eligible = np.zeros((len(kept), len(declared.arms)), dtype=bool)
    for a, number in enumerate(new):
        if number >= 0:
            eligible[:, number] = may[kept, a]
    held = rounds.holdout if rounds.holdout is not None else np.zeros(len(arm), dtype=bool)
    log = AppLog(
        user=user[kept],
        at=at[kept],
        arm=arm[kept],
        reward=rounds.reward[kept],
        delay=delay[kept],
        x=x[kept],
        eligible=eligible,
        holdout=held[kept],
        out=out[kept],
        times_known=times_known,
    )
    return StageLog(stage, log, len(arm) - len(kept))


def _check_rewards(stage: str, reward: Reward, seen: Array) -> None:
    known = seen[~np.isnan(seen)]
    most = np.inf if reward.kind == "revenue" else reward.max  # more than `max` of revenue counts as `max`
    outside = known[(known < reward.min) | (known > most)]
    if len(outside):
        problem = (
            f"{len(outside):,} rewards of {stage}, such as {outside[0]:g}, are outside the declared range, "
            f"{reward.min:g} to {reward.max:g}"
        )
        raise InvalidRequest(Problem("reward", problem, "give the log as it was recorded, and its catalogue"))


def _joined(chunks: list[LoggedRounds]) -> LoggedRounds:
    return LoggedRounds._make(
        None if any(part is None for part in column) else np.concatenate(column) for column in zip(*chunks, strict=True)
    )


def _delay(found: DecisionRecord) -> float:
    """Seconds from a decision to its first reward above 0, NaN without one."""
    times = [
        o.occurred for o in found.outcomes if o.kind == "reward" and not o.late and (o.value is None or o.value > 0)
    ]
    return max(min(times) - found.decision.at, 0) / 1e6 if times else float("nan")


def _out(found: DecisionRecord) -> bool:
    return any(reason.startswith(NO_CONSENT) for reason in found.decision.excluded.values())
