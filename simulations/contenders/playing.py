"""Playing contender: one contender in one run, asked for propensities and taught when windows have closed."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bandit.arrays import Array, Ints, Mask
from bandit.errors import InvalidRequest, Problem
from simulations.contenders import own_code, peers
from simulations.contenders.own_code import Rule
from simulations.contenders.protocol import Actions, Contender, DecisionStage, MakeContender

PREFIXES = ("peer:", "python:")
"""How a specification of a contender begins."""


class _Waiting(NamedTuple):
    """Decisions whose windows are open, n of them in the order of asking."""

    x: Array
    arm: Actions
    reward: Array
    closed: int  # µs at which the last window has closed


class PlayingContender:
    """Contender in a run under way: `propensities` asks it, `put` keeps what was decided, `tick` teaches what has
    closed. Mutable, of one run. `text`: its specification, or a name for what is `given`, a rule or what makes a
    contender.
    """

    def __init__(self, text: str, stages: tuple[DecisionStage, ...], seed: int, given: Any = None):
        self._text, self._field, self._stages = text, f"policy {text}", stages
        self._rule: Rule | None = None
        self._contender: Contender | None = None
        value: Any = given if given is not None else resolved(text)
        if own_code.is_rule(value) and not text.startswith("peer:"):
            self._rule = value
        else:
            with own_code.named(text, self._field):
                self._contender = own_code.maker(value, self._field)(stages, seed)
        self._waiting: list[deque[_Waiting]] = [deque() for _ in stages]

    def propensities(
        self, stage: int, x: Array, eligible: Mask, asked: Mask, contexts: Callable[[Mask], Sequence[Mapping[str, Any]]]
    ) -> Array:
        """Propensities (n, k) of the arms at a stage for x (n, d) and eligible (n, k). Only where `asked` (n,) the
        contender is asked, elsewhere no nudge is shown. `contexts`: what the app sends for the rows of a mask.

        Raises InvalidRequest for an answer of the wrong shape, an arm that may not be shown, and for whatever own code
        raises.
        """
        found = np.zeros(eligible.shape)
        found[:, 0] = 1.0
        if asked.any():
            with own_code.named(self._text, self._field):
                found[asked] = self._answer(stage, x[asked], eligible[asked], lambda: contexts(asked))
        return found

    def put(self, stage: int, x: Array, arm: Actions, reward: Array, expires: Ints) -> None:
        """Keep n decisions that were asked about, with the rewards that their windows will bring (n,), on [0, 1], and
        when those close (n,), µs.
        """
        if self._contender is not None and len(arm):
            self._waiting[stage].append(_Waiting(x, arm, reward, int(expires.max())))

    def tick(self, now: int) -> None:
        """Teach everything whose windows have closed by `now` (µs), in the order of asking."""
        for stage, waiting in enumerate(self._waiting):
            while waiting and waiting[0].closed <= now:
                done = waiting.popleft()
                assert self._contender is not None  # noqa: S101 – rules keep nothing
                with own_code.named(self._text, self._field):
                    self._contender.learn(stage, done.x, done.arm, done.reward)

    def _answer(
        self, stage: int, x: Array, eligible: Mask, contexts: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> Array:
        names = self._stages[stage].arms.names
        if self._rule is not None:
            return own_code.probabilities(self._rule, contexts(), names, eligible, self._field)
        assert self._contender is not None  # noqa: S101 – one of the two is there
        answer = np.asarray(self._contender.decide(stage, x, eligible))
        if answer.shape == (len(x),):
            chosen = answer.astype(np.intp)
            if not ((chosen >= 0) & (chosen < len(names))).all():
                raise self._refused(f"arms {sorted(set(chosen.tolist()))}", f"numbers from 0 to {len(names) - 1}")
            answer = np.eye(len(names))[chosen]
        if answer.shape != eligible.shape:
            fix = f"arms {(len(x),)} or probabilities {eligible.shape}"
            raise self._refused(f"answered an array of shape {answer.shape}", fix)
        if (answer[~eligible] > 0.0).any():
            raise self._refused("chose an arm that may not be shown", "look at `eligible`")
        if not (np.isfinite(answer).all() and (answer >= 0.0).all() and np.allclose(answer.sum(axis=1), 1.0)):
            raise self._refused("probabilities that do not sum to 1", "0 or more each, with the sum 1")
        return np.asarray(answer, dtype=np.float64)

    def _refused(self, problem: str, fix: str) -> InvalidRequest:
        return InvalidRequest(Problem(self._field, problem, fix))


def is_contender(text: str) -> bool:
    """Whether a policy specification names a contender and not a policy of the service."""
    return text.startswith(PREFIXES)


def resolved(text: str) -> Rule | MakeContender | Any:
    """What a specification names: a rule, or what makes a contender. Raises InvalidRequest if there is no such thing
    here.
    """
    return peers.peer(text) if text.startswith("peer:") else own_code.load(text).value


def made_from(text: str) -> str:
    """What a contender is made from, for the digest of its runs: a library with its version, or the SHA-256 of a file.
    Raises InvalidRequest as `resolved`.
    """
    if text.startswith("peer:"):
        return peers.version(text)
    return own_code.load(text).sha256 if text.startswith("python:") else ""
