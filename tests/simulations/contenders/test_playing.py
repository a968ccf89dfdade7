"""Contenders in the simulator: the same people, masks, holdout and money as the service's policies; what is refused."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.errors import InvalidRequest
from simulations import scenario
from simulations.contenders import peers
from simulations.contenders.protocol import Actions, DecisionStage
from simulations.offline import study
from simulations.offline.paired import BASELINE, paired
from simulations.offline.runner import CellOutcome, CellRun, SimulationCell, StepDecisions, run


def cell(policy: str = "mine", **changes: Any) -> SimulationCell:
    return SimulationCell(
        scenario=scenario.load("travel"), policy=policy, **{"users": 200, "days": 12, "seed": 1} | changes
    )


class Sink:
    """Keeps what was decided."""

    def __init__(self) -> None:
        self.rows: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        self.rows.append(rows)


class _Always:
    """A contender that shows the last arm that may be shown, and notes what it learns."""

    def __init__(self, stages: tuple[DecisionStage, ...], seed: int) -> None:  # noqa: ARG002
        (self.stage,) = stages
        self.asked = list[tuple[Array, Actions]]()
        self.learned = list[tuple[Array, Actions]]()

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Actions:  # noqa: ARG002
        arm = np.asarray(eligible.shape[1] - 1 - eligible[:, ::-1].argmax(axis=1), dtype=np.intp)
        self.asked.append((x, arm))
        return arm

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:  # noqa: ARG002
        assert 0.0 <= reward.min() <= reward.max() <= 1.0
        self.learned.append((x, arm))


def played(cell: SimulationCell, contender: Any, sink: Sink | None = None) -> tuple[CellOutcome, Any]:
    made: list[Any] = []

    def make(stages: tuple[DecisionStage, ...], seed: int) -> Any:
        made.append(contender(stages, seed))
        return made[0]

    it = CellRun(cell, sink, make)
    for step in range(cell.days):
        it.step(step)
    return it.done(), made[0]


def test_it_meets_the_same_people_and_learns_in_order_when_windows_have_closed() -> None:
    done, agent = played(cell(), _Always)
    none = run(cell(BASELINE))
    runs = {one.policy: one for one in paired([done, none])}
    assert runs["mine"].percent[0] < -20.0, "ten per cent off for everybody"
    window = agent.stage.window / 86_400.0
    days = done.stages["cart"].decisions
    closed = sum(count for day, count in enumerate(days) if day + window < cell().days - 1)
    assert sum(len(arm) for _, arm in agent.learned) == closed > 0
    assert days[0] == none.stages["cart"].decisions[0], "on the first day nobody was nudged yet"
    for asked, learned in zip(agent.asked, agent.learned, strict=False):
        assert np.array_equal(asked[0], learned[0])
        assert np.array_equal(asked[1], learned[1])


def test_nobody_in_the_holdout_is_asked_about_or_learned_from() -> None:
    sink = Sink()
    _, agent = played(cell(holdout=0.4), _Always, sink)
    held = np.concatenate([rows.holdout for rows in sink.rows])
    arm = np.concatenate([rows.arm for rows in sink.rows])
    assert 0.2 < held.mean() < 0.6
    assert (arm[held] == 0).all()
    assert sum(len(arm) for _, arm in agent.asked) == (~held).sum()


def test_what_it_shows_is_what_the_services_fixed_policy_shows() -> None:
    """The same arm for the same people: the same digest of all decisions, rewards and true values."""

    def freeze(context: Mapping[str, Any], eligible: Sequence[str]) -> str:
        assert context["price"] > 0
        return "price_freeze" if "price_freeze" in eligible else "none"

    mine = CellRun(cell(), None, freeze)
    for step in range(12):
        mine.step(step)
    assert mine.done().digest == run(cell("fixed:price_freeze")).digest


def test_a_rule_may_answer_with_probabilities_which_are_logged() -> None:
    sink = Sink()

    def often(context: Mapping[str, Any], eligible: Sequence[str]) -> str | dict[str, float]:
        return {"none": 0.25, "reminder": 0.75} if "reminder" in eligible else "none"

    it = CellRun(cell(), sink, often)
    for step in range(12):
        it.step(step)
    p = np.concatenate([rows.propensities for rows in sink.rows])
    arm = np.concatenate([rows.arm for rows in sink.rows])
    assert set(np.unique(p)) == {0.0, 0.25, 0.75, 1.0}
    assert abs((arm == 1).mean() - 0.75) < 0.1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("free_flight", "chose 'free_flight', which may not be shown"),
        ({"none": 0.5}, "with the sum 1"),
        ({"none": 1.5, "reminder": -0.5}, "0 or more each"),
    ],
)
def test_answers_of_a_rule_that_cannot_be_used_are_refused(answer: Any, found: str) -> None:
    it = CellRun(cell(), None, lambda context, eligible: answer)  # noqa: ARG005
    with pytest.raises(InvalidRequest, match=found):
        it.step(0)


def test_what_makes_no_contender_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="lacks decide and learn"):
        CellRun(cell(), None, lambda stages, seed: object())  # noqa: ARG005


class _Wrong(_Always):
    answer: Any = None

    def decide(self, stage: int, x: Array, eligible: NDArray[np.bool_]) -> Any:  # noqa: ARG002
        return type(self).answer(eligible)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda may: np.full(len(may), 9), "numbers from 0 to 4"),
        (lambda may: np.ones((len(may), 2)), "shape"),
        (lambda may: np.where(may, 1.0, 0.0), "sum to 1"),
        (lambda may: np.full(may.shape, 0.2), "may not be shown"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(answer: Any, found: str) -> None:
    kind = type("_Answers", (_Wrong,), {"answer": staticmethod(answer)})
    with pytest.raises(InvalidRequest, match=found):
        played(cell(), kind)


def test_a_file_of_ones_own_plays_by_name_and_anew_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "rules.py"
    file.write_text("def remind(context, eligible):\n    return 'reminder' if 'reminder' in eligible else 'none'\n")
    name = f"python:{file}:remind"
    (one,) = study.cells(scenario.load("travel"), [name], [1], users=200, days=3)
    (done,) = study.study([one], tmp_path / "out", backend="processes", workers=1)
    assert done.label == name
    assert sum(done.stages["cart"].nudged) > 0
    file.write_text(file.read_text() + "\n# another\n")
    (again,) = study.cells(scenario.load("travel"), [name], [1], users=200, days=3)
    assert again.digest() != one.digest()


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("python:{}/rules.py:remnd", "nothing to call named 'remnd' → did you mean `remind`"),
        ("python:{}/gone.py:remind", "there is no file"),
        ("python:{}/broken.py:remind", "cannot be imported: ZeroDivisionError"),
        ("python:rules", "no place and name"),
        ("peer:lintz", "did you mean `lints`"),
        ("peer:lints:alpa=3", "did you mean `alpha`"),
        ("peer:lints:alpha=x", "is not NAME=NUMBER"),
    ],
)
def test_a_contender_that_is_not_there_is_refused_before_anything_runs(policy: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("def remind(context, eligible):\n    return 'none'\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InvalidRequest, match=found):
        study.cells(scenario.load("travel"), ["uniform", policy.format(tmp_path)], [1], users=200, days=3)


def test_a_library_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "lints", peers.PeerKind("no_such_package", "no-such", {}))
    with pytest.raises(InvalidRequest, match=r"no-such is not installed → pip install 'journey-bandit\[peers\]'"):
        study.cells(scenario.load("travel"), ["peer:lints"], [1], users=200, days=3)


@pytest.mark.parametrize("name", sorted(peers.PEERS))
def test_a_peer_learns_what_pays(name: str) -> None:
    """Where the reminder helps everybody by three logits, a peer shows it more at the end than at the beginning, when
    it had learned nothing; two runs are one.
    """
    if importlib.util.find_spec(peers.PEERS[name].module) is None:
        pytest.skip(f"{peers.PEERS[name].distribution} is not installed")
    rich = scenario.load("travel")
    replace = msgspec.structs.replace
    people = {key: replace(p, effects=p.effects | {"reminder": 3.0}) for key, p in rich.personas.items()}
    (one,) = study.cells(replace(rich, personas=people), [f"peer:{name}"], [3], users=500, days=30)
    done = run(one)
    assert done.digest == run(one).digest, "a run is a function of its cell"
    by_day = np.array(done.stages["cart"].by_day, dtype=float)
    early, late = (part.sum(axis=0) / part.sum() for part in (by_day[:5], by_day[22:]))
    assert (early > 0.02).sum() >= 3, "it explores"
    assert late[1] > early[1] + 0.25


def test_settings_reach_the_library() -> None:
    pytest.importorskip("mabwiser", reason="the extra `peers` is not installed")
    (plain,) = study.cells(scenario.load("travel"), ["peer:lints"], [1], users=200, days=14)
    (wide,) = study.cells(scenario.load("travel"), ["peer:lints:alpha=5"], [1], users=200, days=14)
    assert run(plain).digest != run(wide).digest
