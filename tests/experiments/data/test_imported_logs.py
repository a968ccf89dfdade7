"""Logs of other programs: the same decisions from every format, and what cannot be used, by line and field."""

import codecs
import gzip
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from experiments.data import files, vw_text
from experiments.data.rounds import LoggedRounds
from experiments.ope import evaluate
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm

NAMES = ("Cappucino", "Cold brew", "Latte")


def one_chunk(path: Path) -> tuple[files.LogFile, LoggedRounds]:
    log = files.open_log(path)
    (chunk,) = log.source()()
    return log, chunk


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def event(chosen: int, cost: float, order: list[int], p: list[float], **more: Any) -> dict[str, Any]:
    """An event as Azure Personalizer logs it; `order` and `chosen` number actions from 1."""
    multi = [{"_tag": name, "i": {"constant": 1, "id": name}, "j": [{"type": "hot"}]} for name in NAMES]
    body = {
        "_label_cost": cost,
        "_label_probability": float(np.float32(p[order.index(chosen)])),
        "_label_Action": chosen,
        "_labelIndex": chosen - 1,
        "o": [{"v": -cost, "EventId": "13118d9b", "ActionTaken": False}],
        "Timestamp": "2021-02-04T16:31:29.2460000Z",
        "Version": "1",
        "EventId": "13118d9b",
        "a": order,
        "c": {"FromUrl": [{"timeofday": "Morning", "age": 41}], "_multi": multi},
        "p": p,
        "VWState": {"m": "ff0744c1/a494e"},
    }
    return body | more


def dsjson(*events: dict[str, Any]) -> str:
    return "\n".join(json.dumps(one) for one in events) + "\n"


# -- DSJSON -----------------------------------------------------------------------------------------------------


def test_events_of_personalizer_are_decisions_of_named_arms(tmp_path: Path) -> None:
    """Actions in any order, with the probabilities beside them; the same arm has the same number in all events."""
    second = event(1, -1.0, [1, 3, 2], [0.8, 0.1, 0.1])
    second["c"]["_multi"] = [second["c"]["_multi"][i] for i in (2, 0, 1)]  # 1 is now Latte
    second["c"]["FromUrl"][0] |= {"timeofday": "Evening", "age": 20.5, "_hidden": 7}
    file = written(tmp_path / "log.json", dsjson(event(3, -0.5, [3, 1, 2], [0.7, 0.2, 0.1]), second))
    log, rounds = one_chunk(file)
    assert log.arms == NAMES
    assert rounds.action.tolist() == [2, 2]
    assert rounds.reward.tolist() == [0.5, 1.0]
    assert rounds.pscore.tolist() == [0.7, 0.8]  # of p, which are not rounded to 32 bits
    assert rounds.propensities is not None
    assert rounds.propensities == pytest.approx(np.array([[0.2, 0.1, 0.7], [0.1, 0.1, 0.8]]))
    assert rounds.at is not None
    assert rounds.at.tolist() == [1612456289246000] * 2
    assert rounds.x is not None
    assert rounds.x.tolist() == [[41.0, 0.0, 1.0], [20.5, 1.0, 0.0]]
    assert "context: x_0 FromUrl.age, x_1 FromUrl.timeofday=Evening, x_2 FromUrl.timeofday=Morning" in log.notes
    assert any("minus the cost" in note for note in log.notes)


def test_what_is_no_decision_is_left_out_and_counted(tmp_path: Path) -> None:
    lost = {"EventId": "13118d9b", "RewardValue": 1.0}
    deferred = event(2, 0.0, [2, 1, 3], [0.8, 0.1, 0.1], DeferredAction=True)
    shown = deferred | {"o": [{"v": 1.0, "ActionTaken": True}]}
    events = (lost, event(2, 0.0, [2, 1, 3], [0.8, 0.1, 0.1]), deferred, deferred, shown)
    log, rounds = one_chunk(written(tmp_path / "log.dsjson", dsjson(*events)))
    assert len(rounds.reward) == 2
    assert "left out: 1 lines that are outcomes without an event" in log.notes
    assert "left out: 2 deferred events that were never activated" in log.notes


def test_actions_without_names_are_numbered_by_their_place(tmp_path: Path) -> None:
    plain = {"_label_cost": 0.0, "_label_probability": 0.5, "_label_Action": 2, "a": [2, 1], "p": [0.5, 0.5]}
    more = {"_label_cost": -1.0, "_label_probability": 0.2, "_label_Action": 3, "a": [1, 2, 3], "p": [0.4, 0.4, 0.2]}
    log, rounds = one_chunk(written(tmp_path / "log.json", dsjson(plain, more)))
    assert log.arms == ()
    assert rounds.action.tolist() == [1, 2]
    assert rounds.eligible is not None
    assert rounds.eligible.tolist() == [[True, True, False], [True, True, True]]
    assert any("the same place has to be the same action" in note for note in log.notes)


def test_actions_in_another_order_are_as_many_and_need_no_note(tmp_path: Path) -> None:
    one = {"_label_cost": 0.0, "_label_probability": 0.5, "_label_Action": 2, "a": [2, 1], "p": [0.5, 0.5]}
    log, rounds = one_chunk(written(tmp_path / "log.json", dsjson(one, one | {"a": [1, 2]})))
    assert rounds.action.tolist() == [1, 1]
    assert not any("the same place" in note for note in log.notes)


GOOD = {"_label_cost": 0.0, "_label_probability": 0.5, "_label_Action": 2, "a": [2, 1], "p": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_label_Action": 3}, "log.json:2: _label_Action: 3 is not in a"),
        ({"_label_cost": None}, "log.json:2: _label_cost: there is no value"),
        ({"_label_cost": "1"}, "log.json:2: _label_cost: '1' is not a number"),
        ({"_label_probability": 0.0}, "log.json:2: _label_probability: 0 cannot have been drawn"),
        ({"_label_probability": 1.5}, "log.json:2: _label_probability: 1.5 is not"),
        ({"p": [0.5]}, "log.json:2: p: not 2 probabilities"),
        ({"p": [0.5, "x"]}, "log.json:2: p: not 2 probabilities"),
        ({"a": [2, 2]}, "log.json:2: a: not the numbers of the actions"),
        ({"a": None}, "log.json:2: a: not the numbers of the actions"),
        ({"_outcomes": []}, "log.json:2: an event with several slots"),
        ({"c": {"_slots": []}}, "log.json:2: an event with several slots"),
        ({"pdrop": 0.5}, "log.json:2: pdrop: 0.5, and 0 before: events of a log that was thinned unevenly"),
        ({"pdrop": 1.0}, "log.json:2: pdrop: 1 is no probability to drop an event"),
        ({"pdrop": "x"}, "log.json:2: pdrop: 'x' is not a number"),
    ],
)
def test_an_event_that_cannot_be_used_is_named_by_line_and_field(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as error:
        files.open_log(written(tmp_path / "log.json", dsjson(GOOD, GOOD | change)))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "log.json:2: not JSON"), ("[1]", "log.json:2: not an event"), ("x", "log.json:2: not JSON")],
)
def test_a_line_that_is_cut_is_named(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as error:
        files.open_log(written(tmp_path / "log.json", f"{json.dumps(GOOD)}\n{line}\n"))
    assert said in str(error.value)


def test_a_log_that_was_thinned_alike_is_read(tmp_path: Path) -> None:
    _, rounds = one_chunk(written(tmp_path / "log.json", dsjson(GOOD | {"pdrop": 0.5}, GOOD | {"pdrop": 0.5})))
    assert len(rounds.reward) == 2


# -- Vowpal Wabbit's text ----------------------------------------------------------------------------------------

CB = "1:-1:0.25 | age:0.4 phone\n2:0:0.75 |u age:0.9 |d phone:2\n\n1:-0.5:.5 2 3 | age:1\n"
ADF = """shared |u age:0.4
 |a cold
0:-1:0.25 |a hot

shared |u age:0.9
0:0:0.75 |a cold
 |a hot
 |a latte
"""


def test_lines_of_cb_are_decisions(tmp_path: Path) -> None:
    log, rounds = one_chunk(written(tmp_path / "log.vw", CB))
    assert rounds.action.tolist() == [0, 1, 0]
    assert rounds.reward.tolist() == [1.0, 0.0, 0.5]
    assert rounds.pscore.tolist() == [0.25, 0.75, 0.5]
    assert rounds.eligible is not None
    assert rounds.eligible.all()
    assert rounds.x is not None
    assert "context: x_0 age, x_1 d^phone, x_2 phone, x_3 u^age" in log.notes
    assert rounds.x.tolist() == [[0.4, 0, 1, 0], [0, 2, 0, 0.9], [1, 0, 0, 0]]


def test_cb_with_some_actions_says_which_were_eligible(tmp_path: Path) -> None:
    _, rounds = one_chunk(written(tmp_path / "log.vw", "1 3:0:0.5 |\n2:-1:0.5 |\n"))
    assert rounds.eligible is not None
    assert rounds.eligible.tolist() == [[True, False, True], [True, True, True]]
    assert rounds.action.tolist() == [2, 1]


@pytest.mark.parametrize("text", [ADF, "\ufeff" + ADF.replace("\n", "\r\n"), ADF.replace("shared |u age:0.4\n", "")])
def test_blocks_of_cb_adf_are_decisions(text: str, tmp_path: Path) -> None:
    log, rounds = one_chunk(written(tmp_path / "log.vw", text))
    assert rounds.action.tolist() == [1, 0]
    assert rounds.reward.tolist() == [1.0, 0.0]
    assert rounds.pscore.tolist() == [0.25, 0.75]
    assert rounds.eligible is not None
    assert rounds.eligible.tolist() == [[True, True, False], [True, True, True]]
    assert any("the same place has to be the same action" in note for note in log.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1:0:0.5 | a\n2:0 | a\n", "log.vw:2: label: '2:0' is not a label of a contextual bandit"),
        ("1:0:0.5 | a\n3 | a\n", "log.vw:2: label: 0 labels with a cost"),
        ("1:0:0.5 2:1:0.5 | a\n", "log.vw:1: label: 2 labels with a cost"),
        ("0:0:0.5 | a\n", "log.vw:1: label: an action 0"),
        ("1:0:0.5 | a:x\n", "log.vw:1: a: 'x' is not a number"),
        ("shared | a\n | b\n | c\n", "log.vw:1: label: 0 of the 2 actions of this event have a label"),
        ("| b\n0:1:0.5 | c\n0:1:0.5 | d\n", "log.vw:1: label: 2 of the 3 actions"),
        ("1:0:1.5 | a\n", "pscore: not usable in 1 rows, first in log.vw:1"),
    ],
)  # fmt: skip
def test_a_label_that_cannot_be_used_is_named_by_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as error:
        one_chunk(written(tmp_path / "log.vw", text))
    assert said in str(error.value).replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize("separator", ["|", " | ", ",", "\t"])
def test_a_table_stays_a_table(separator: str, tmp_path: Path) -> None:
    rows = [("action", "reward", "pscore"), ("0", "1", "0.5"), ("1", "0", "0.5")]
    log, rounds = one_chunk(written(tmp_path / "t.csv", "\n".join(map(separator.join, rows))))
    assert log.table is not None
    assert rounds.action.tolist() == [0, 1]


def test_a_table_with_bars_and_a_first_column_without_a_name_stays_a_table(tmp_path: Path) -> None:
    """As pandas writes it, `df.to_csv(sep="|")`: the rows are numbered in front of the first bar."""
    log, rounds = one_chunk(written(tmp_path / "t.csv", "|action|reward|pscore\n0|0|1|0.5\n1|1|0|0.5\n"))
    assert log.table is not None
    assert rounds.action.tolist() == [0, 1]


def test_a_header_of_many_columns_is_looked_at_once(tmp_path: Path) -> None:
    """2,000 names between bars, the last with a space and a comma: an expression that backtracks never returns."""
    names = ["action", "reward", "pscore", *(f"c{i}" for i in range(2000)), "device type, or model"]
    cells = ["0", "1", "0.5", *("7" for _ in range(2000)), "phone"]
    for first in ("", "|"):
        assert not vw_text.recognised([first + "|".join(names)])
    log, _ = one_chunk(written(tmp_path / "t.csv", "|".join(names) + "\n" + "|".join(cells) + "\n"))
    assert log.table is not None


def test_events_are_not_held_as_objects(tmp_path: Path) -> None:
    """20,000 events of 3 actions with propensities and 2 features become 23 numbers each: below 500 bytes at most."""
    made = ({"_label_cost": 0.0, "_label_probability": 0.5, "_label_Action": 1, "a": [1, 2, 3], "p": [0.5, 0.25, 0.25],
             "c": {"age": i, "height": i / 7}} for i in range(20_000))  # fmt: skip
    file = written(tmp_path / "log.json", "\n".join(map(json.dumps, made)))
    tracemalloc.start()
    try:
        log = files.open_log(file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.foreign is not None
    assert most < 20_000 * 500


# -- Open Bandit Pipeline ----------------------------------------------------------------------------------------


def feedback() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), 50)
    action = rng.integers(0, 3, 50)
    return {
        "n_rounds": 50,
        "n_actions": 3,
        "context": rng.normal(size=(50, 2)),
        "action_context": np.eye(3),
        "action": action,
        "position": None,
        "reward": rng.integers(0, 2, 50),
        "expected_reward": rng.random((50, 3)),
        "pi_b": p[:, :, None],
        "pscore": p[np.arange(50), action],
    }


def test_bandit_feedback_is_read_from_npz_and_json(tmp_path: Path) -> None:
    known = feedback()
    np.savez(tmp_path / "whole.npz", **known)  # position is an array of objects
    np.savez_compressed(tmp_path / "packed.npz", **{k: v for k, v in known.items() if v is not None})
    as_lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in known.items()}
    written(tmp_path / "log.json", json.dumps(as_lists, indent=1))
    for name in ("whole.npz", "packed.npz", "log.json"):
        log, rounds = one_chunk(tmp_path / name)
        assert rounds.action.tolist() == known["action"].tolist()
        assert rounds.reward.tolist() == known["reward"].tolist()
        assert np.array_equal(rounds.pscore, known["pscore"])
        assert rounds.x is not None
        assert np.array_equal(rounds.x, known["context"])
        assert rounds.propensities is not None
        assert rounds.propensities == pytest.approx(known["pi_b"][:, :, 0])
        assert log.notes == ("not read: action_context, expected_reward",)


def test_propensities_are_those_of_the_position(tmp_path: Path) -> None:
    known, rng = feedback(), np.random.default_rng(2)
    known["position"], known["pi_b"] = rng.integers(0, 2, 50), rng.dirichlet(np.ones(3), (50, 2)).transpose(0, 2, 1)
    known["pscore"] = known["pi_b"][np.arange(50), known["action"], known["position"]]
    np.savez(tmp_path / "log.npz", **known)
    _, rounds = one_chunk(tmp_path / "log.npz")
    assert rounds.propensities is not None
    assert rounds.propensities[np.arange(50), rounds.action] == pytest.approx(rounds.pscore)
    assert rounds.position is not None
    del known["position"]
    np.savez(tmp_path / "log.npz", **known)
    with pytest.raises(InvalidRequest, match="position: not the 2 positions of pi_b"):
        files.open_log(tmp_path / "log.npz")


@pytest.mark.parametrize("name", ["log.npz", "log.json"])
def test_without_propensities_of_all_arms_n_actions_says_how_many_there_are(name: str, tmp_path: Path) -> None:
    known = {key: value for key, value in feedback().items() if key in ("n_actions", "action", "reward", "pscore")}
    if name == "log.npz":
        np.savez(tmp_path / name, **known)
    else:
        written(tmp_path / name, json.dumps({k: np.asarray(v).tolist() for k, v in known.items()}))
    _, rounds = one_chunk(tmp_path / name)
    assert rounds.propensities is None
    assert rounds.eligible is not None
    assert rounds.eligible.shape == (50, 3)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    file = written(tmp_path / "log.pkl", pickle.dumps({"action": _Trap()}, protocol))
    with pytest.raises(InvalidRequest, match=r"it is a pickle.*np\.savez\('log.npz'"):
        files.open_log(file)


def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    trapped = feedback() | {"action": np.array([_Trap()] * 50)}
    np.savez(tmp_path / "log.npz", **trapped)
    with pytest.raises(InvalidRequest, match=r"log.npz: action: there is no such array"):
        files.open_log(tmp_path / "log.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reward": np.zeros(49)}, "reward: 49 values for 50 actions"),
        ({"pscore": np.zeros((50, 1))}, r"pscore: an array of the shape \(50, 1\)"),
        ({"context": np.zeros((49, 2))}, r"context: an array of the shape \(49, 2\)"),
        ({"pi_b": np.zeros(50)}, r"pi_b: an array of the shape \(50,\)"),
        ({"action": np.array(["a"] * 50)}, "action: there is no such array"),
    ],
)
def test_an_array_of_another_shape_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **feedback() | change)
    with pytest.raises(InvalidRequest, match=said):
        files.open_log(tmp_path / "log.npz")


# -- all of them --------------------------------------------------------------------------------------------------


def encoded(text: str) -> dict[str, bytes]:
    return {
        "windows": text.replace("\n", "\r\n").encode(),
        "utf-8 with a mark": codecs.BOM_UTF8 + text.encode(),
        "utf-16": codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        "gzip": gzip.compress(text.encode()),
        "without a last line end": text.rstrip("\n").encode(),
        "empty lines at the end": text.encode() + b"\n\n",
    }


@pytest.mark.parametrize("text", [CB, ADF, dsjson(GOOD, event(1, -1.0, [1, 2], [0.5, 0.5]) | {"c": {}})])
def test_encodings_change_nothing(text: str, tmp_path: Path) -> None:
    _, plain = one_chunk(written(tmp_path / "log", text))
    for name, data in encoded(text).items():
        _, rounds = one_chunk(written(tmp_path / "log", data))
        assert rounds.action.tolist() == plain.action.tolist(), name
        assert rounds.reward.tolist() == plain.reward.tolist(), name
        assert rounds.pscore.tolist() == plain.pscore.tolist(), name


@pytest.mark.parametrize("text", ['{"type":"track","event":"Order Completed"}\n', '{"action":[0,1]}\n'])
def test_other_json_is_refused_with_what_is_known(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no decision log that is known"):
        files.open_log(written(tmp_path / "events.json", text))


def test_the_same_decisions_have_the_same_value_in_every_format(tmp_path: Path) -> None:
    """400 decisions among three arms: ips of an arm by hand, and bit for bit from a table, cb, cb_adf, DSJSON, npz."""
    rng = np.random.default_rng(3)
    p = np.round(rng.dirichlet(np.full(3, 4.0), 400), 3)
    p[:, 2] = 1.0 - p[:, 0] - p[:, 1]
    action = np.array([rng.choice(3, p=row) for row in p])
    reward, pscore = (rng.random(400) < 0.3 + 0.1 * action).astype(float), p[np.arange(400), action]
    rows = list(zip(action.tolist(), reward.tolist(), pscore.tolist(), p.tolist(), strict=True))
    wide = [f"{a},{r},{q},{','.join(map(repr, row))}" for a, r, q, row in rows]
    adf = ["\n".join(f"{f'0:{-r}:{q!r} ' if b == a else ''}|a n{b}" for b in range(3)) for a, r, q, _ in rows]
    made = {
        "t.csv": "\n".join(["action,reward,pscore,p_0,p_1,p_2", *wide]),
        "cb.vw": "\n".join(f"{a + 1}:{-r}:{q!r} | one" for a, r, q, _ in rows),
        "adf.vw": "\n\n".join(adf) + "\n",
        "log.dsjson": dsjson(*(event(a + 1, -r, [1, 2, 3], row) | {"c": {}} for a, r, _, row in rows)),
    }
    np.savez(tmp_path / "obp.npz", action=action, reward=reward, pscore=pscore, pi_b=p[:, :, None])
    paths = [written(tmp_path / name, text) for name, text in made.items()] + [tmp_path / "obp.npz"]
    by_hand = float(np.mean((action == 2) * reward / pscore))
    for path in paths:
        asked = EvaluationConfig((EvaluationPolicy("2", FixedArm(2)),), follow=False)
        (found,) = evaluate.evaluate(files.open_log(path).sources(), asked)
        assert not found.refused, path.name
        assert found.estimates["ips"].value == pytest.approx(by_hand, rel=1e-12), path.name


def test_labels_are_those_that_vowpal_wabbit_reads(tmp_path: Path) -> None:
    """Its own parser, of text and DSJSON: which action, at which cost and probability."""
    pyvw = pytest.importorskip("vowpalwabbit.pyvw")

    def labels(options: str, text: str) -> list[str]:
        examples = pyvw.Workspace(f"{options} --quiet").parse(text)
        return [str(one.get_label(pyvw.LabelType.CONTEXTUAL_BANDIT)) for one in examples]

    line = dsjson(event(3, -0.5, [3, 1, 2], [0.75, 0.125, 0.125]))
    block = "shared |u age:0.4\n |a cold\n0:-1:0.25 |a hot"
    for options, text, place in (("--cb_adf --dsjson", line.strip(), 2), ("--cb_adf", block, 1)):
        _, rounds = one_chunk(written(tmp_path / "log", text))
        actions = labels(options, text)[1:]  # without the shared one
        assert [i for i, label in enumerate(actions) if label] == [place] == rounds.action.tolist()
        _, cost, probability = map(float, actions[place].split(":"))
        assert (-cost, probability) == (rounds.reward[0], rounds.pscore[0])
