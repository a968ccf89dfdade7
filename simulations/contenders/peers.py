"""Peers: bandits of other people's libraries as contenders, at the library's defaults unless settings are given.

peer:vw          Vowpal Wabbit, cb_explore_adf with ε-greedy (0.05); settings epsilon, lr
peer:squarecb    Vowpal Wabbit, cb_explore_adf with SquareCB; settings gamma_scale, lr
peer:linucb      MABWiser, LinUCB (disjoint); setting alpha
peer:lints       MABWiser, linear Thompson sampling (disjoint); setting alpha
peer:gittins     gittins, at its own exploration; settings bits, epsilon

They learn utility = gain · reward − cost, in units of the reward range, and pick among the arms that may be shown.
Where a library cannot predict before its first fit, its first batch at a stage is uniform. The extra `peers` installs
them; each is imported when it plays.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from bandit.arrays import Array, Mask
from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, Problem
from bandit.policies.protocol import ArmEconomics
from simulations.contenders.protocol import Actions, Contender, DecisionStage, MakeContender, utility


class StagedArms(Protocol):
    """What peers are told of a problem: economics of the arms of each stage."""

    @property
    def arms(self) -> Sequence[ArmEconomics]:
        """Economics of each stage's arms, in the order of the stages."""
        ...


class MABWiser:
    """Contender of the package mabwiser: one MAB object for each stage, with its learning policy `policy`."""

    def __init__(self, policy: str, problem: StagedArms, seed: int, **settings: float):
        module = importlib.import_module("mabwiser.mab")
        learning = getattr(module.LearningPolicy, policy)(**settings)
        self.arms = problem.arms
        self.mab = [module.MAB(list(range(len(a.names))), learning, seed=seed + s) for s, a in enumerate(problem.arms)]
        self.fitted = [False] * len(self.mab)
        self.rng = np.random.default_rng([seed, 2])

    def decide(self, stage: int, x: Array, eligible: Mask) -> Actions:
        """Arms (n,) with the largest (sampled) expectation among the eligible: x (n, d), eligible (n, k)."""
        if not self.fitted[stage]:
            drawn = np.where(eligible, self.rng.random(eligible.shape), -1.0)
            return np.asarray(drawn.argmax(axis=1), dtype=np.intp)
        found: Any = self.mab[stage].predict_expectations(x)
        rows = [found] if isinstance(found, dict) else found
        score = np.array([[row[a] for a in range(eligible.shape[1])] for row in rows])
        return np.asarray(np.where(eligible, score, -np.inf).argmax(axis=1), dtype=np.intp)

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n rows by the library's `partial_fit`: utilities, in the order of the decisions."""
        self.mab[stage].partial_fit(arm.tolist(), utility(self.arms[stage], arm, reward), x)
        self.fitted[stage] = True


class VowpalWabbit:
    """Contender of Vowpal Wabbit, `--cb_explore_adf`: context in namespace S, arms in A; `pooled` adds the stage in G
    and arms' types.
    """

    def __init__(self, options: str, problem: StagedArms, seed: int, *, pooled: bool = False):
        module = importlib.import_module("vowpalwabbit")
        crossed = "-q SA -q GS" if pooled else "-q SA"
        start = f"--cb_explore_adf {crossed} --quiet --random_seed {seed + 1} {options}"
        count = 1 if pooled else len(problem.arms)
        self.models: list[Any] = [module.Workspace(start) for _ in range(count)]
        self.arms, self.pooled = problem.arms, pooled
        self.shown: dict[int, list[tuple[Array, Mask]]] = {}
        self.types = sorted({kind for arms in problem.arms for kind in arms.kinds})

    def decide(self, stage: int, x: Array, eligible: Mask) -> Array:
        """The library's own probabilities (n, k), which are kept for learning, as the library asks."""
        model, found = self.models[0 if self.pooled else stage], np.zeros(eligible.shape)
        for i in range(len(x)):
            found[i, eligible[i]] = model.predict(self._example(stage, x[i], eligible[i]))
        found /= found.sum(axis=1, keepdims=True)  # the library's are of single precision
        self.shown.setdefault(stage, []).extend(zip(found, eligible, strict=True))
        return found

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn n rows; costs are negative utilities. Outcomes come back in the order of the decisions, which finds
        their probabilities again.
        """
        model, worth = self.models[0 if self.pooled else stage], utility(self.arms[stage], arm, reward)
        asked, self.shown[stage] = self.shown[stage][: len(arm)], self.shown[stage][len(arm) :]
        for row, a, gained, (p, may) in zip(x, arm.tolist(), worth.tolist(), asked, strict=True):
            model.learn(self._example(stage, row, may, (a, -gained, float(p[a]))))

    def _example(
        self, stage: int, x: Array, eligible: Mask, label: tuple[int, float, float] | None = None
    ) -> list[str]:
        where = f" |G s{stage}" if self.pooled else ""
        numbers = " ".join(f"f{j}:{v:.6g}" for j, v in enumerate(x.tolist()) if v)
        lines = [f"shared |S {numbers}{where}"]
        for a in np.flatnonzero(eligible).tolist():
            known = f"0:{label[1]:.6g}:{label[2]:.6g} " if label and label[0] == a else ""
            kind = f" t{self.types.index(self.arms[stage].kinds[a])}" if self.pooled and a else ""
            lines.append(f"{known}|A s{stage}a{a}{kind}")
        return lines


class Gittins:
    """Contender of the package gittins: one state for each stage. Time is the number of the decision, and a decision
    waits until it is learned.
    """

    def __init__(self, stages: Sequence[DecisionStage], seed: int, bits: float = 14.0, **settings: float):
        self._module: Any = importlib.import_module("gittins")
        self._stages = stages
        self._states = [self._module.create(bits=int(bits), horizon=1e12, **settings) for _ in stages]
        self._asked: list[list[str]] = [[] for _ in stages]
        self._now, self._salt = 0.0, f"seed-{seed}"

    def decide(self, stage: int, x: Array, eligible: Mask) -> Actions:
        """Arms (n,) that the library chose: x (n, d), eligible (n, k)."""
        arm, names = np.zeros(len(x), dtype=np.intp), self._stages[stage].arms.names
        for i, row in enumerate(x.tolist()):
            may = np.flatnonzero(eligible[i]).tolist()
            context = {f"f{j}": v for j, v in enumerate(row)}
            arms: list[tuple[str, dict[str, float]]] = [(names[a], {}) for a in may]
            self._now += 1.0
            made = self._module.decide(self._states[stage], context, arms, self._now, f"{self._salt}-{stage}")
            arm[i] = may[made.chosen]
            self._asked[stage].append(made.decision_id)
        return arm

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:  # noqa: ARG002 – it keeps the contexts
        """Learn n rows in the order of the decisions: utilities."""
        asked, self._asked[stage] = self._asked[stage][: len(arm)], self._asked[stage][len(arm) :]
        worth = utility(self._stages[stage].arms, arm, reward)
        for decision, gained in zip(asked, worth.tolist(), strict=True):
            self._now += 1.0
            self._module.learn(self._states[stage], decision, gained, self._now)


class PeerKind(NamedTuple):
    """Kind of peer: its package's module and distribution, and its settings with their defaults; None is the
    library's own.
    """

    module: str
    distribution: str
    settings: dict[str, float | None]


PEERS = {
    "vw": PeerKind("vowpalwabbit", "vowpalwabbit", {"epsilon": 0.05, "lr": 0.5}),
    "squarecb": PeerKind("vowpalwabbit", "vowpalwabbit", {"gamma_scale": None, "lr": 0.5}),
    "linucb": PeerKind("mabwiser", "mabwiser", {"alpha": 1.0}),
    "lints": PeerKind("mabwiser", "mabwiser", {"alpha": 1.0}),
    "gittins": PeerKind("gittins", "gittins", {"bits": 14.0, "epsilon": None}),
}
"""Peers by the name after `peer:`."""


def peer(text: str) -> MakeContender:
    """What makes the peer that a policy specification `peer:NAME` or `peer:NAME:SETTING=NUMBER,…` names. Raises
    InvalidRequest for a name or setting that is not known, and for a package that is not installed.
    """
    name, settings = _parsed(text)
    kind = PEERS[name]
    if importlib.util.find_spec(kind.module) is None:
        fix = "pip install 'journey-bandit[peers]'"
        raise InvalidRequest(Problem(f"policy {text}", f"{kind.distribution} is not installed", fix))

    def make(stages: tuple[DecisionStage, ...], seed: int) -> Contender:
        problem = _Stages(tuple(stage.arms for stage in stages))
        if name == "gittins":
            return Gittins(stages, seed, **settings)
        if kind.module == "mabwiser":
            return MABWiser({"linucb": "LinUCB", "lints": "LinTS"}[name], problem, seed, **settings)
        options = "--squarecb" if name == "squarecb" else ""
        for setting, value in settings.items():
            options += f" {'-l' if setting == 'lr' else f'--{setting}'} {value:g}"
        return VowpalWabbit(options.strip(), problem, seed)

    return make


def version(text: str) -> str:
    """Distribution and version of the library behind `peer:…`, such as "mabwiser 2.7.4". Raises as `peer`."""
    peer(text)
    distribution = PEERS[_parsed(text)[0]].distribution
    return f"{distribution} {importlib.metadata.version(distribution)}"


class _Stages(NamedTuple):
    arms: tuple[ArmEconomics, ...]


def _parsed(text: str) -> tuple[str, dict[str, float]]:
    """Name and settings of a specification, defaults filled in."""
    name, _, rest = text.removeprefix("peer:").partition(":")
    if name not in PEERS:
        raise InvalidRequest(Problem(f"policy {text}", f"{name!r} is no peer", closest(name, PEERS)))
    allowed = PEERS[name].settings
    settings = {key: value for key, value in allowed.items() if value is not None}
    for part in (part for part in rest.split(",") if part):
        key, _, number = part.partition("=")
        if key not in allowed:
            raise InvalidRequest(Problem(f"policy {text}", f"{name} has no setting {key!r}", closest(key, allowed)))
        try:
            settings[key] = float(number)
        except ValueError:
            raise InvalidRequest(Problem(f"policy {text}", f"{part!r} is not NAME=NUMBER", f"e.g. {key}=0.5")) from None
    return name, settings
