"""Schema of a Parquet decision log: its columns and its metadata, declared once for the simulator, which writes such
files, and for the evaluation, which reads them. Opens no file itself.

Columns, one row for each decision: user, at (µs since 1970), version, action (number of the arm), reward (own units,
NaN where not known), pscore, holdout; x_<i>; p_<a> (propensities of every arm, 0 = ineligible); q_hat_<a> (posterior
mean reward on [0, 1], as it was when decided); and where the truth is known truth_<a> (expected net value, in currency)
and regret.
"""

import msgspec

KEY = b"journey_bandit"
"""Where the file's own metadata hold a `LogMetadata` as JSON."""

PLAIN = ("user", "at", "version", "action", "reward", "pscore", "holdout")
"""Columns of which a log has one each, in the order of the file."""

BY_ARM = ("p", "q_hat")
"""Columns of which every arm has one."""

WHOLE = {"user": "<i8", "at": "<i8", "version": "<i8", "action": "<i2", "holdout": "|b1"}
"""Types, as numpy writes them, of the columns that do not hold float64."""

FLOAT = "<f8"


class LogReward(msgspec.Struct, frozen=True):
    """The declared reward of a stage, as the metadata of a Parquet log hold it.

    `kind`: the catalogue's kind of reward. `min`, `max`: its range, in the reward's own units. `value`: what one unit
    of reward is worth, in the currency of the log.
    """

    kind: str
    min: float
    max: float
    value: float = 1.0


class LogMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a Parquet log of ours: where the log comes from and how its rewards are to be read.

    `app` and `stage` name the stage, `arms` its k arms in the order of their numbers, `policy` is the label of the one
    that decided. `scenario` (a digest) and `seed` say which simulation wrote the log, "" and 0 for others. `currency`
    is the code of that of `reward.value`. `floor` is the least propensity of an eligible arm, in [0, 1]. `gain` and
    `cost` (k each) are what one unit of reward is worth with each arm and what showing it costs, in currency; empty
    where that is not known. The digest of a log counts every field, so one that is added changes the digests of all
    logs.
    """

    app: str
    stage: str
    arms: tuple[str, ...]
    policy: str = ""
    scenario: str = ""
    seed: int = 0
    currency: str = ""
    reward: LogReward
    floor: float = 0.0
    gain: tuple[float, ...] = ()
    cost: tuple[float, ...] = ()


def column_names(d: int, k: int, *, truth: bool = True) -> list[str]:
    """Names of the columns of a log with d features and k arms, in the order of the file; `truth`: whether the truth is
    among them.
    """
    wide = [f"x_{i}" for i in range(d)] + [f"{what}_{a}" for what in BY_ARM for a in range(k)]
    return [*PLAIN, *wide, *([f"truth_{a}" for a in range(k)] + ["regret"] if truth else [])]
