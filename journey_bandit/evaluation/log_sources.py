"""Log sources: opening a log for evaluation, a file or a stage of a ledger, with the policies that are to be evaluated
on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bandit.catalogue.decoding import closest
from bandit.catalogue.model import NONE, Stage
from bandit.catalogue.net_value import ArmWorth, arm_worth
from bandit.errors import InvalidRequest, Problem
from bandit.snapshot import Snapshot
from experiments.data import files, part_files
from experiments.data.rounds import LoggedRounds, RewardRange, Source
from experiments.ope.accumulate import heaviest_of
from experiments.ope.evaluation_policies import EvaluationPolicy
from journey_bandit.evaluation import policy_names
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import LedgerLog


class RequestedPolicies(NamedTuple):
    """Names of policies as given on the command line, or in Python the policies themselves: those to evaluate, and
    those `against` which to contrast them.
    """

    policies: Sequence[str | EvaluationPolicy]
    against: Sequence[str | EvaluationPolicy]


class EvaluationLog(NamedTuple):
    """Log opened for evaluation, whatever it comes from, with policies and units. `arms` is empty where the log numbers
    them; `rewards` is their range, `worth` their money, in `unit`; `prices`: the same where rewards are counted and the
    log has an arm for no nudge, in `currency`; `heaviest`: the weight that is expected, 1 / floor.
    """

    title: str
    sources: list[Source]
    arms: tuple[str, ...]
    rewards: RewardRange | None
    worth: ArmWorth | None
    unit: str
    targets: tuple[EvaluationPolicy, ...]
    against: tuple[EvaluationPolicy, ...]
    heaviest: float  # weight that is expected: 1 / floor
    ledger: LedgerLog | None = None
    notes: tuple[str, ...] = ()  # on how a file was read, and on what a ledger lacks
    emptied: str | None = None  # why no decision is left to judge a snapshot by
    manifest: str = ""  # digest that names an export, whose bytes were compared with it
    prices: ArmWorth | None = None  # None: net gains over no nudge cannot be told
    currency: str = ""


def of_file(
    path: Path,
    wanted: RequestedPolicies,
    rewards: RewardRange | None,
    renamed: Mapping[str, str],
    *,
    elsewhere: bool,
    measure: str | None = None,
    priced: "PricedStage | None" = None,
    context: Sequence[str] = (),
) -> EvaluationLog:
    """Evaluation log of a file, or of a folder of Parquet files. `renamed`: {our column: the
    file's}. `measure`: net, reward, or None for net where costs are known; they are in Parquet files of ours, or
    `priced` says them. `context`: the file's columns that are context.

    Snapshots are judged by decisions of their own version and later ones, if the file has versions. Raises
    InvalidRequest for a file, column or policy that cannot be used, and for an export that is not as it was written.
    """
    file = files.open_log(path, renamed, context)
    own = any(name.startswith("pi_e") for name in file.columns)
    if not wanted.policies and not own:
        fix = f"add pi_e or pi_e_0 … to it, or give --policy: {policy_names.FORMS}"
        raise InvalidRequest(Problem("policy", "the log does not describe a policy to evaluate", fix))
    manifest = part_files.named(path) if path.is_dir() else None
    arms = file.arms or (priced.stage.arms if priced else ())
    named, others = policy_names.targets(wanted.policies or ("log",), wanted.against, arms)
    learned = [snapshot.version for _, snapshot in (*named, *others) if snapshot is not None]
    prices, currency = _file_prices(file, measure, priced)
    worth = None if measure == "reward" else prices
    sources = file.sources()
    if learned and "version" in file.columns and not elsewhere:
        sources = [partial(_since, source, max(learned)) for source in sources]
    return EvaluationLog(
        title=str(path),
        sources=sources,
        arms=arms,
        rewards=rewards or (file.rewards if priced is None else priced.rewards),
        worth=worth,
        unit="reward" if worth is None else f"net value, {currency},",
        targets=tuple(target for target, _ in named),
        against=tuple(target for target, _ in others),
        heaviest=heaviest_of(priced.stage.common_floor if priced else file.meta.floor if file.meta else 0.0),
        notes=file.notes,
        manifest=manifest.digest if manifest else "",
        prices=prices if arms[:1] == (NONE,) else None,
        currency=currency,
    )


class PricedStage(NamedTuple):
    """Stage of a catalogue that says what a file's rewards are worth: its declaration, and the currency."""

    stage: Stage
    currency: str

    @property
    def rewards(self) -> RewardRange:
        """The declared range of rewards."""
        return RewardRange(self.stage.reward.min, self.stage.reward.max)

    def worth(self, arms: tuple[str, ...]) -> ArmWorth:
        """Worth of the file's arms, by name where it names them, else in the order of the catalogue. Raises
        InvalidRequest for an arm that the stage does not declare.
        """
        found = arm_worth(self.stage.reward.value, self.stage.nudges.values())
        for arm in arms:
            if arm not in self.stage.arms:
                raise InvalidRequest(
                    Problem("action", f"the catalogue has no arm {arm!r}", closest(arm, self.stage.arms))
                )
        order = [self.stage.arms.index(arm) for arm in arms or self.stage.arms]
        return ArmWorth(found.gain[order], found.cost[order])


def _file_prices(file: files.LogFile, measure: str | None, priced: PricedStage | None) -> tuple[ArmWorth | None, str]:
    """Worth by arm, None where it is not known, and the currency."""
    worth = file.worth if priced is None else priced.worth(file.arms)
    if measure == "net" and worth is None:
        fix = "give --app with the catalogue and --stage"
        raise InvalidRequest(Problem("measure", f"{file.path} does not say what nudges cost", fix))
    currency = priced.currency if priced else file.meta.currency if file.meta else ""
    return worth, currency


def _since(source: Source, version: int) -> Iterator[LoggedRounds]:
    for chunk in source():
        yield chunk if chunk.version is None else chunk.only(chunk.version >= version)


def of_ledger(
    url: str, stage: str, wanted: RequestedPolicies, *, net: bool, segment: str, elsewhere: bool
) -> EvaluationLog:
    """Evaluation log of a stage of a ledger. `net`: in currency, costs taken off. Snapshots that learned from it are
    judged by later decisions only; with several, all by the same. The caller closes the store of `ledger`; it is closed
    if this raises.

    Raises InvalidRequest for a policy that cannot be used, NotFound if the ledger has no such stage.
    """
    log = ledger_log.open_log(url, stage)._replace(segment=segment)
    try:
        return _of_stage(log, url, wanted, net=net, elsewhere=elsewhere)
    except BaseException:
        log.store.close()
        raise


def _of_stage(log: LedgerLog, url: str, wanted: RequestedPolicies, *, net: bool, elsewhere: bool) -> EvaluationLog:
    named, others = policy_names.targets(wanted.policies or ("logged",), wanted.against, log.arms)
    snapshots = [snapshot for _, snapshot in (*named, *others) if snapshot is not None]
    for snapshot in snapshots:
        log.check(snapshot)
    if not elsewhere:
        log = log._replace(after=max((_taught(log, snapshot) for snapshot in snapshots), default=0))
    return EvaluationLog(
        title=f"{log.app}/{log.stage} in {url}" + (f", after decision {log.after}" if log.after else ""),
        sources=[log.source()],
        arms=log.arms,
        rewards=log.rewards,
        worth=log.worth if net else None,
        unit=f"net value, {log.currency}," if net else "reward",
        targets=tuple(target for target, _ in named),
        against=tuple(target for target, _ in others),
        heaviest=heaviest_of(log.spec.common_floor),
        ledger=log,
        emptied=ledger_log.learned_everything(log) if snapshots else None,
        notes=ledger_log.of_those_who_stay(log),
        prices=log.worth,
        currency=log.currency,
    )


def _taught(log: LedgerLog, snapshot: Snapshot) -> int:
    """The last decision that it may have learned from, settled or open. InvalidRequest if it is of another stage."""
    if (snapshot.app, snapshot.stage) != (log.app, log.stage):
        problem = f"the snapshot is of {snapshot.app}/{snapshot.stage}, the log of {log.app}/{log.stage}"
        raise InvalidRequest(
            Problem("policy", problem, "give a snapshot of the same stage, or say --learned-elsewhere")
        )
    seen_open = snapshot.pending_basis.decisions if snapshot.pending is not None else 0
    return max(log.learned_through(snapshot.version), seen_open)
