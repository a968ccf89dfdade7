"""`export`: a ledger's stage as a folder of parts, which gives what the ledger gives."""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from api.ledger import audit
from api.stores import open_store
from bandit.records import Settlement
from experiments.data import files
from journey_bandit.main import group
from tests.journey_bandit.evaluation.ledgers import STAGE, TRAVEL, D, K, decided

N = 700
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "exports.md"
ASKED = ("--policy", "fixed:reminder", "--policy", "uniform", "--against", "none", "--json")
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(group, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 decisions of about 470 people, the last five of which are open."""
    file, rng = tmp_path_factory.mktemp("ledger") / "l.db", np.random.default_rng(8)
    decisions = [decided(seq, rng) for seq in range(1, N + 1)]
    told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    done = [Settlement(decision_seq=s, arm=d.arm, reward=float(rng.random() < 0.3), **told)
            for s, d in enumerate(decisions[:-5], 1)]  # fmt: skip
    store = open_store(f"sqlite:///{file}")
    audit.claim(store, TRAVEL, "salt")
    store.record(decisions, [], 0, store.specs())
    store.settle(done)
    store.close()
    return file


def numbers(body: dict[str, Any]) -> Any:
    names = ("n", "units", "rows", "holdout", "estimates", "contrasts", "diagnostics", "support", "refused", "segments")
    return {name: body.get(name) for name in names}


def close(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(close(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(close, left, right))
    return bool(left == pytest.approx(right, rel=1e-12, abs=1e-12)) if isinstance(left, float) else bool(left == right)


@pytest.mark.parametrize("measure", ["net", "reward"])
def test_an_export_gives_what_its_ledger_gives(run: Run, ledger: Path, tmp_path: Path, measure: str) -> None:
    """To rounding; also where an eligible arm had no chance, and with open decisions at the end."""
    done = run("export", "--ledger", ledger, "--stage", "cart", "--segment", "device", tmp_path / "log")
    assert done.exit_code == 0, done.output
    assert f"{N:,} decisions of travel/cart in 1 parts" in done.output
    asked = (*ASKED, "--measure", measure, "--force", "--slope")
    mine = run("evaluate", "--ledger", ledger, "--stage", "cart", "--segment", "device", *asked)
    theirs = run("evaluate", "--rounds", tmp_path / "log", *asked)
    assert (mine.exit_code, theirs.exit_code) == (0, 0), mine.output + theirs.output
    left, right = json.loads(mine.stdout), json.loads(theirs.stdout)
    contrasts = left["contrasts"].keys() & right["contrasts"].keys()
    for body in (left, right):  # on a ledger no nudge is always contrasted with, in whatever order
        body["contrasts"] = {name: body["contrasts"][name] for name in sorted(contrasts)}
    assert contrasts == {"logged", "none"}
    assert left["estimates"]["dr"]["value"] != 0.0
    assert close(numbers(left), numbers(right))
    assert files.open_log(tmp_path / "log").columns[0] == "user"


def test_the_digest_is_the_same_in_any_number_of_parts(run: Run, ledger: Path, tmp_path: Path) -> None:
    digests = []
    for rows, parts in ((1000, 1), (300, 3), (100, 7)):
        done = run("export", "--ledger", ledger, "--stage", "cart", "--partition-rows", rows, tmp_path / f"{rows}")
        assert f"in {parts} parts" in done.output
        assert len(list((tmp_path / f"{rows}").glob("part-*.parquet"))) == parts
        digests.append(json.loads(run("evaluate", "--rounds", tmp_path / f"{rows}", *ASKED).stdout)["digest"])
    assert len(digests[0]) == 64
    assert digests == digests[:1] * 3
    level = json.loads(run("evaluate", "--rounds", tmp_path / "100", *ASKED, "--level", 0.9).stdout)
    assert level["digest"] != digests[0]


def test_nothing_is_exported_of_a_stage_without_decisions(run: Run, ledger: Path, tmp_path: Path) -> None:
    other = next(name for name in TRAVEL.stages if name != "cart")
    done = run("export", "--ledger", ledger, "--stage", other, tmp_path / "log")
    assert str(done.exception) == f"stage: '{other}' has no decisions that count → wait for some"
    assert list(tmp_path.iterdir()) == []


def test_an_export_has_what_an_analyst_needs_under_names(run: Run, ledger: Path, tmp_path: Path) -> None:
    """Each column is what the ledger's record says, in the app's units and in money; the user is a keyed hash."""
    assert run("export", "--ledger", ledger, "--stage", "cart", tmp_path / "log").exit_code == 0
    rows = parquet.read_table(tmp_path / "log").to_pylist()
    nudges, store = STAGE.nudges, open_store(f"sqlite:///{ledger}", read_only=True)
    for row, found in zip(rows, store.decisions("cart"), strict=True):
        decision, done = found.decision, found.settlement
        assert (row["decision_id"], row["user_hash"]) == (str(decision.id), decision.user.hex())
        assert (row["arm"], STAGE.arms[row["action"]]) == (decision.arm, decision.arm)
        assert row["time"] == dt.datetime.fromtimestamp(decision.at / 1e6, dt.UTC)
        assert (row["holdout"], row["holdout_share"]) == (decision.holdout, STAGE.holdout)
        assert (row["release"], row["version"]) == (0, decision.settlement_version)
        assert row["eligible"] == [arm for arm in STAGE.arms if arm not in decision.excluded]
        assert [row[f"propensity_{arm}"] for arm in STAGE.arms] == decision.propensity.tolist()
        assert [row[f"score_{arm}"] for arm in STAGE.arms] == pytest.approx(decision.mean.tolist(), rel=1e-15)
        assert (row["reward"], row["why"]) == ((None, None) if done is None else (done.reward, done.why))
        cost = 0.0 if decision.arm == "none" else nudges[decision.arm].cost
        gain = STAGE.reward.value - (0.0 if decision.arm == "none" else nudges[decision.arm].cost_when_rewarded)
        assert row["net"] == (None if done is None else gain * done.reward - cost)
        assert row["expected_net_none"] == pytest.approx(STAGE.reward.value * decision.mean[0], rel=1e-15)
        assert {name for name in row if name.startswith("f_")} == {f"f_{name}" for name in STAGE.features}
    assert sum(row["net"] is None for row in rows) == 5
    assert len({row["arm"] for row in rows}) > 2
    store.close()


TYPES = {
    "integer": ("int16", "int64"),
    "number": ("double",),
    "text": ("string",),
    "boolean": ("bool",),
    "timestamp (UTC)": ("timestamp[us, tz=UTC]",),
    "list of texts": ("list<item: string>", "list<element: string>"),
}


def documented() -> dict[str, str]:
    """The guide's columns of decisions and their types; `<arm>` and the like stand for each of the stage."""
    each: dict[str, list[str]] = {
        "<arm>": list(STAGE.arms),
        "<feature>": list(STAGE.features),
        "<i>": [f"{i}" for i in range(D)],
        "<a>": [f"{a}" for a in range(K)],
    }
    found = list[tuple[str, str]]()
    section = GUIDE.read_text(encoding="utf-8").split("\n## Columns\n")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        names, types = re.findall(r"`(.*?)`", row[0]), row[1].split(", ")
        for name, kind in zip(names, types * len(names) if len(types) == 1 else types, strict=True):
            mark = next((mark for mark in each if mark in name), "")
            found += [(name.replace(mark, one), kind) for one in each[mark]] if mark else [(name, kind)]
    assert len(dict(found)) == len(found), "each column once"
    return dict(found)


def test_the_guide_lists_each_column_and_its_type(run: Run, ledger: Path, tmp_path: Path) -> None:
    done = run("export", "--ledger", ledger, "--stage", "cart", "--segment", "device", tmp_path / "log")
    assert done.exit_code == 0
    schema, said = parquet.read_schema(tmp_path / "log" / "part-00000.parquet"), documented()
    assert sorted(schema.names) == sorted(said)
    for name, feature in STAGE.features.items():
        assert said[f"f_{name}"] == "as declared"
        said[f"f_{name}"] = {"category": "text", "boolean": "boolean"}.get(feature.type, "number")
    wrong = {name: (kind, str(schema.field(name).type)) for name, kind in said.items()
             if str(schema.field(name).type) not in TYPES[kind]}  # fmt: skip
    assert wrong == {}
    assert len({feature.type for feature in STAGE.features.values()}) > 2


def test_the_manifest_names_its_log(run: Run, ledger: Path, tmp_path: Path) -> None:
    """By a digest that anybody can compute; two exports of the same position are the same log."""
    done = run("export", "--ledger", ledger, "--stage", "cart", "--partition-rows", 300, tmp_path / "log")
    said = json.loads((tmp_path / "log" / "_manifest.json").read_bytes())
    digest = said.pop("digest")
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert f"manifest {digest}" in done.output
    assert (said["app"], said["stage"], tuple(said["arms"])) == ("travel", "cart", STAGE.arms)
    assert said["position"] == {"decision": N, "settlement": N - 5, "outcome": 0, "erasure": 0}
    for part in said["parts"]:
        content = (tmp_path / "log" / part["file"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (part["sha256"], part["bytes"])
    run("export", "--ledger", ledger, "--stage", "cart", "--partition-rows", 300, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "_manifest.json").read_bytes())["digest"] == digest
    shown = run("evaluate", "--rounds", tmp_path / "log", *ASKED[:-1], "--force")
    assert f"of the export whose manifest begins with {digest[:16]}\n" in shown.output


def even(file: Path) -> Path:
    """700 decisions that show each of the first three arms with a third, no other one."""
    rng, p = np.random.default_rng(9), np.array([1 / 3] * 3 + [0.0] * (K - 3))
    decisions = [
        msgspec.structs.replace(decided(s, rng), propensity=p, arm=STAGE.arms[rng.integers(3)], excluded={})
        for s in range(1, N + 1)
    ]
    told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    done = [
        Settlement(decision_seq=s, arm=d.arm, reward=float(rng.random() < 0.3), **told)
        for s, d in enumerate(decisions, 1)
    ]
    store = open_store(f"sqlite:///{file}")
    audit.claim(store, TRAVEL, "salt")
    store.record(decisions, [], 0, store.specs())
    store.settle(done)
    store.close()
    return file


def test_an_export_says_the_net_gain_that_its_ledger_says(run: Run, tmp_path: Path) -> None:
    """The same words and figures, whatever is measured, below the table of policies and before everything else."""
    ledger, log = even(tmp_path / "l.db"), tmp_path / "log"
    run("export", "--ledger", ledger, "--stage", "cart", log)
    both = ("--ledger", ledger, "--stage", "cart"), ("--rounds", log)
    asked = ("--policy", "logged", "--policy", "fixed:reminder")
    for measure in ("net", "reward"):
        shown = [run("evaluate", *of, *asked, "--measure", measure).stdout.splitlines() for of in both]
        said = [
            [line for line in lines if re.match(r"[\w:]+: .* no nudge, .* EUR per decision", line)] for lines in shown
        ]
        assert [line.split(": ")[0] for line in said[0]] == ["logged", "fixed:reminder"]
        assert said[0] == said[1]
        for lines in shown:
            first, second, *_ = (i for i, line in enumerate(lines) if line.startswith("┃"))
            assert lines[first].split("┃")[1].strip() == "policy"
            assert first < lines.index(said[0][0]) < second
    ours, theirs = (json.loads(run("evaluate", *of, *asked, "--json").stdout)["money"] for of in both)
    assert {name: gain["said"] for name, gain in ours.items()} == {name: gain["said"] for name, gain in theirs.items()}


def test_what_no_nudge_earns_is_no_prediction(run: Run, ledger: Path, tmp_path: Path) -> None:
    """No nudge was drawn with a chance of 10⁻⁷: no net gain, and the reason, in both."""
    run("export", "--ledger", ledger, "--stage", "cart", tmp_path / "log")
    for of in (("--ledger", ledger, "--stage", "cart"), ("--rounds", tmp_path / "log")):
        found = json.loads(run("evaluate", *of, *ASKED, "--force").stdout)
        assert "money" not in found
        assert found["money_refused"]
        shown = run("evaluate", *of, *ASKED[:-1], "--force").stdout
        assert f"the log cannot say what no nudge earns: {found['money_refused'][0]['reason']}: " in shown


def test_a_taken_folder_of_an_export_tells_how_to_go_on(run: Run, ledger: Path, tmp_path: Path) -> None:
    for name, hint in (("log", True), ("mine", False)):
        (tmp_path / name).mkdir()
        if hint:
            (tmp_path / name / "_manifest.json").write_text("{}")
        done = run("export", "--ledger", ledger, "--stage", "cart", tmp_path / name)
        assert "give a name that is not taken" in str(done.exception)
        assert ("say --continue" in str(done.exception)) == hint


def a_byte(folder: Path) -> None:
    path = folder / "part-00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:10] + bytes([content[10] ^ 1]) + content[11:])


def a_word(folder: Path) -> None:
    path = folder / "_manifest.json"
    path.write_text(path.read_text().replace('"travel"', '"fashion"'))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (a_byte, "part-00001.parquet: it is not the file that the _manifest.json names"),
        (a_word, "_manifest.json: its digest is not that of what it says"),
    ],
)
def test_an_export_that_was_changed_is_not_evaluated(
    run: Run, ledger: Path, tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    run("export", "--ledger", ledger, "--stage", "cart", "--partition-rows", 300, tmp_path / "log")
    harm(tmp_path / "log")
    assert said in str(run("evaluate", "--rounds", tmp_path / "log", *ASKED).exception)


def test_an_export_may_begin_and_end_at_a_time(run: Run, ledger: Path, tmp_path: Path) -> None:
    """Decision n was made n seconds after the epoch; the end is not part of it."""
    bounds = ("--since", "1970-01-01T00:01:40", "--until", "1970-01-01T00:05:00Z")
    done = run("export", "--ledger", ledger, "--stage", "cart", *bounds, tmp_path / "log")
    assert "200 decisions of travel/cart" in done.output
    assert parquet.read_table(tmp_path / "log")["decision"].to_pylist() == list(range(100, 300))
