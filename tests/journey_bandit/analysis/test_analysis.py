"""Analysis in Python: the figures of the commands, from files, ledgers and tables of other libraries, as objects."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import csv, parquet

from api.ledger import audit
from api.stores import open_store
from bandit.errors import InvalidRequest
from bandit.records import Settlement
from experiments.ope.evaluation_policies import EvaluationPolicy, UniformChoice
from journey_bandit import analysis
from journey_bandit.main import group
from tests.journey_bandit.evaluation.ledgers import TRAVEL, decided

N = 700
ASKED = ("--policy", "uniform", "--policy", "fixed:reminder", "--against", "none")


class CapsuleOnly:
    """A table of a library that we do not know: nothing but the PyCapsule interface."""

    def __init__(self, table: Any):
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def command(*arguments: object) -> dict[str, Any]:
    """The JSON object that a command prints; a refusal's status 3 is no error."""
    done = CliRunner().invoke(group, [*map(str, arguments), "--json"])
    assert done.exit_code in (0, 3), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 decisions, the last five of which are open."""
    file, rng = tmp_path_factory.mktemp("ledger") / "l.db", np.random.default_rng(8)
    decisions = [decided(seq, rng) for seq in range(1, N + 1)]
    told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    store = open_store(f"sqlite:///{file}")
    audit.claim(store, TRAVEL, "salt")
    store.record(decisions, [], 0, store.specs())
    store.settle(
        [
            Settlement(decision_seq=s, arm=d.arm, reward=float(rng.random() < 0.3), **told)
            for s, d in enumerate(decisions[:-5], 1)
        ]
    )
    store.close()
    return file


@pytest.fixture(scope="module")
def exported(ledger: Path) -> Path:
    folder = ledger.parent / "log"
    done = CliRunner().invoke(group, ["export", "--ledger", str(ledger), "--stage", "cart", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def rounds(n: int = 3000, *, named: bool = False) -> dict[str, Any]:
    """A log of two arms whose rates are 0.2 and 0.4, drawn with 0.7 and 0.3."""
    rng = np.random.default_rng(3)
    action = (rng.random(n) < 0.3).astype(int)
    reward = (rng.random(n) < 0.2 + 0.2 * action).astype(float)
    p = {"p_none" if named else "p_0": np.full(n, 0.7), "p_mail" if named else "p_1": np.full(n, 0.3)}
    drawn = np.where(action == 1, "mail", "none") if named else action
    return {"action": drawn, "reward": reward, "pscore": np.where(action == 1, 0.3, 0.7), **p}


# -- the figures are those of the commands -----------------------------------------------------------------------


def test_a_ledger_gives_what_the_command_prints(ledger: Path) -> None:
    found = analysis.evaluate_ledger(ledger, "cart", ["uniform", "fixed:reminder"], ["none"], force=True)
    printed = command("evaluate", "--ledger", ledger, "--stage", "cart", *ASKED, "--force")
    assert found.as_dict() == printed
    assert len(printed["digest"]) == 64
    assert [verdict.verdict.decision for verdict in found.verdicts] == [v["decision"] for v in printed["verdicts"]]
    assert set(printed["money"]) == {"uniform", "fixed:reminder"}


def test_options_reach_the_evaluation(ledger: Path) -> None:
    found = analysis.evaluate_ledger(
        ledger, "cart", ["uniform"], measure="reward", segment="device", level=0.9, sequence=False, force=True
    )
    words = ("--measure", "reward", "--segment", "device", "--level", "0.9", "--no-sequence", "--force")
    assert found.as_dict() == command("evaluate", "--ledger", ledger, "--stage", "cart", "--policy", "uniform", *words)
    assert found.evaluations[0].segments is not None


def test_an_export_gives_what_the_command_prints_and_its_manifest(exported: Path) -> None:
    printed = command("evaluate", "--rounds", exported, *ASKED, "--force")
    for given in (exported, str(exported), analysis.read_export(exported)):
        found = analysis.evaluate_log(given, ["uniform", "fixed:reminder"], ["none"], force=True)
        assert found.as_dict() == printed
    assert printed["manifest"] == analysis.read_export(exported).manifest.digest


def polars_frame(table: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(table)


def duckdb_relation(table: Any) -> Any:
    return pytest.importorskip("duckdb").from_arrow(table)


LIBRARIES = [lambda t: t, lambda t: t.to_pandas(), polars_frame, duckdb_relation, CapsuleOnly]


@pytest.mark.parametrize("named", [False, True], ids=["numbers", "names"])
@pytest.mark.parametrize("made", LIBRARIES)
def test_a_log_in_any_library_gives_what_its_file_gives(
    tmp_path: Path, made: Callable[[Any], Any], named: bool
) -> None:
    table = pa.table(rounds(named=named))
    parquet.write_table(table, tmp_path / "log.parquet")
    mail = "fixed:mail" if named else "fixed:1"
    printed = command("evaluate", "--rounds", tmp_path / "log.parquet", "--policy", mail, "--against", "none")
    found = analysis.evaluate_log(made(table), [mail], ["none"])
    assert found.as_dict() == printed
    assert printed["estimates"]["dr"]["value"] == pytest.approx(0.4, abs=0.05)
    assert found.evaluated.shown.title == "the table"


def test_categories_of_a_data_frame_are_their_values() -> None:
    frame = pandas.DataFrame(rounds(named=True)).astype({"action": "category"})
    plain = pandas.DataFrame(rounds(named=True))
    one, two = (analysis.evaluate_log(given, ["fixed:mail"]).as_dict() for given in (frame, plain))
    assert one == two


def test_a_policy_may_be_an_object() -> None:
    table = pa.table(rounds())
    own = analysis.evaluate_log(table, [EvaluationPolicy("mine", UniformChoice())])
    named = analysis.evaluate_log(table, ["uniform"])
    assert own["mine"].estimates == named["uniform"].estimates


def people(n: int = 400) -> Any:
    rng = np.random.default_rng(5)
    arm = np.where(rng.random(n) < 0.5, "a", "b")
    bought = (rng.random(n) < 0.3 + 0.2 * (arm == "b")).astype(int)
    return pa.table({"variant": arm, "bought": bought, "spent": np.round(bought * rng.random(n) * 20, 2)})


@pytest.mark.parametrize("made", LIBRARIES)
def test_a_test_in_any_library_gives_what_its_file_gives(tmp_path: Path, made: Callable[[Any], Any]) -> None:
    csv.write_csv(people(), tmp_path / "t.csv")
    words = ("--arm", "variant", "--outcome", "bought", "--outcome", "spent", "--control", "a", "--shares", "a=.5,b=.5")
    printed = command("evaluate", "table", tmp_path / "t.csv", *words, "--value", "spent=0.4", "--cost", "b=0.1")
    told: dict[str, Any] = {"arm": "variant", "outcomes": ["bought", "spent"], "control": "a"}
    told |= {"shares": {"a": 0.5, "b": 0.5}, "values": {"spent": 0.4}, "costs": {"b": 0.1}}
    found = analysis.evaluate_table(made(people()), **told)
    assert {"file": str(tmp_path / "t.csv"), **found.as_dict()} == printed
    assert found.as_dict() == analysis.evaluate_table(tmp_path / "t.csv", **told).as_dict()
    assert [one["name"] for one in printed["outcomes"]] == ["bought", "spent", "net"]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_null_and_nan_are_missing(nothing: float | None) -> None:
    spent = [nothing if i == 7 else 1.0 for i in range(400)]
    table = people().set_column(2, "spent", pa.array(spent, pa.float64()))
    (refusal,) = analysis.evaluate_table(table, arm="variant", outcomes=["spent"], control="a").refused
    assert (refusal.reason, refusal.detail) == ("missing", "spent has no value in 1 row of the table: line 9")


def test_arms_of_a_test_may_be_categories() -> None:
    frame = people().to_pandas().astype({"variant": "category"})
    one, two = (analysis.evaluate_table(t, arm="variant", outcomes=["bought"], control="a") for t in (frame, people()))
    assert one.as_dict() == two.as_dict()


def test_no_nudge_comes_first_whatever_else_was_asked_for(ledger: Path) -> None:
    found = analysis.evaluate_ledger(ledger, "cart", ["uniform"], ["fixed:reminder"], force=True)
    assert next(iter(found["uniform"].contrasts)) != "none"
    assert found.to_arrow().to_pylist()[0]["name"] == "none"


def test_a_simulation_gives_what_the_command_prints(tmp_path: Path) -> None:
    words = ("--app", "travel", "--policy", "uniform", "--policy", "fixed:reminder", "--users", 200, "--days", 4)
    more = ("--seeds", 2, "--holdout", 0.2, "--backend", "serial")
    printed = command("simulate", *words, *more, "--out", tmp_path / "out")
    size: dict[str, Any] = {"users": 200, "days": 4, "seeds": 2, "holdout": 0.2, "backend": "serial"}
    found = analysis.simulate("travel", ["uniform", "fixed:reminder"], **size)
    files = ("figures", "reports")
    assert found.as_dict() == {name: value for name, value in printed.items() if name not in files}
    assert found.to_arrow().column("vs_none").to_pylist() == [m["vs_none"] for m in printed["stages"]["cart"].values()]
    assert "uniform" in found.sentence("cart") or "fixed:reminder" in found.sentence("cart")
    with pytest.raises(InvalidRequest, match="'search' was not played → one of cart"):
        found.plot("search")


# -- results as tables, figures and pages ------------------------------------------------------------------------


def test_results_are_tables_of_any_library() -> None:
    found = analysis.evaluate_log(pa.table(rounds()), ["fixed:1"], ["none"])
    body, table = found.as_dict(), pa.table(found)
    first = table.to_pylist()[0]
    assert (first["policy"], first["kind"], first["name"]) == ("fixed:1", "difference", "none")
    assert first["value"] == body["contrasts"]["none"]["value"]
    assert [first["low"], first["high"]] == body["contrasts"]["none"]["interval"]
    assert [first["sequence_low"], first["sequence_high"]] == body["contrasts"]["none"]["sequence"]
    assert table.num_rows == len(body["contrasts"]) + len(body["estimates"])
    assert found.to_frame().equals(table.to_pandas())
    assert polars_frame(found).shape == (table.num_rows, table.num_columns)


def test_a_test_is_a_table_whose_control_has_no_difference() -> None:
    found = analysis.evaluate_table(people(), arm="variant", outcomes=["bought"], control="a")
    one, two = found.to_arrow().to_pylist()
    assert (one["arm"], one["difference"], one["p"]) == ("a", None, None)
    compared = found.as_dict()["outcomes"][0]["comparisons"][0]
    assert (two["difference"], [two["low"], two["high"]]) == (compared["difference"], compared["interval"])


def drawn(figure: Any) -> list[tuple[str, list[float]]]:
    """Titles of the panels, and the points in each: lines of one point."""
    return [
        (axes.get_title(), [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1])
        for axes in figure.axes
    ]


def test_the_difference_to_no_nudge_is_drawn_first() -> None:
    found = analysis.evaluate_log(pa.table(rounds()), ["fixed:1"], ["none"])
    body, (over, value) = found.as_dict(), drawn(found.plot())
    assert over == ("Over no nudge", [body["contrasts"]["none"]["value"]])
    assert value == ("Value", [body["estimates"]["dr"]["value"]])
    assert found.plot()._repr_png_() == found.plot()._repr_png_()
    bought = analysis.evaluate_table(people(), arm="variant", outcomes=["bought"], control="a")
    (title, gaps), (_, means) = drawn(bought.plot())
    assert (title, len(gaps), len(means)) == ("bought, less a", 1, 2)


def test_the_figure_of_a_simulation_begins_with_money_over_no_nudge() -> None:
    found = analysis.simulate("travel", ["fixed:reminder"], users=200, days=4, seeds=2, backend="serial")
    over, value = found.plot().axes
    assert (over.get_title(), value.get_title()) == ("Net value over no nudge", "Net value")
    (line,) = [line for line in over.lines if line.get_label() == "fixed:reminder"]
    assert line.get_ydata()[-1] == pytest.approx(found.to_arrow().column("vs_none").to_pylist()[0], rel=1e-4)
    assert len(over.collections) == 1, "a band over seeds"
    (legend,) = found.plot().legends
    assert {text.get_text() for text in legend.get_texts()} == {"fixed:reminder", "fixed:none"}


def test_pages_are_escaped_and_have_no_script(exported: Path) -> None:
    bad = "<script>alert(1)</script>"
    log = analysis.evaluate_log(pa.table(rounds()), [EvaluationPolicy(bad, UniformChoice())])
    frame = people().to_pandas().assign(variant=lambda f: f.variant.where(f.variant == "a", bad))
    test = analysis.evaluate_table(frame, arm="variant", outcomes=["bought"], control="a")
    for page in (log._repr_html_(), test._repr_html_(), analysis.read_export(exported)._repr_html_()):
        assert "<script" not in page
        assert "<table>" in page
    assert log._repr_html_().index("over the logging policy") < log._repr_html_().index("value</th>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in log._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in test._repr_html_()


def test_what_a_log_cannot_answer_is_part_of_the_result() -> None:
    """Propensities that say nothing of what was drawn."""
    wrong = rounds() | {"pscore": np.full(3000, 0.5), "p_0": np.full(3000, 0.5), "p_1": np.full(3000, 0.5)}
    found = analysis.evaluate_log(pa.table(wrong), ["fixed:1"], ["none"])
    assert [refusal.reason for refusal in found.refused["fixed:1"]] == ["propensities"]
    assert found.to_arrow().num_rows == 0
    assert "Needed: " in found._repr_html_()
    assert drawn(found.plot()) == [("Over the logging policy", []), ("Value", [])]
    forced = analysis.evaluate_log(pa.table(wrong), ["fixed:1"], ["none"], force=True)
    assert "FORCED:" in forced._repr_html_()
    assert "FORCED" in repr(forced)


# -- exports, errors, extras -------------------------------------------------------------------------------------


def test_an_export_is_a_table_of_its_rows(exported: Path) -> None:
    log, rows = analysis.read_export(exported), parquet.read_table(exported)
    assert len(log) == rows.num_rows == N
    assert log.to_arrow().equals(rows.cast(log.schema))
    assert pa.table(log).equals(log.to_arrow())
    assert log.to_frame(["arm", "reward"]).columns.tolist() == ["arm", "reward"]
    with pytest.raises(InvalidRequest, match="the export has no column 'armm' → did you mean `arm`"):
        log.to_arrow(["armm"])


def test_an_export_with_other_bytes_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for file in exported.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    part = folder / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(InvalidRequest, match="part-00000"):
        analysis.read_export(folder)
    (folder / "_manifest.json").unlink()
    with pytest.raises(InvalidRequest, match="it has no manifest"):
        analysis.read_export(folder)


def test_rows_of_an_export_without_its_units_are_refused(exported: Path) -> None:
    log = analysis.read_export(exported)
    whole = analysis.evaluate_log(log.to_arrow(), ["uniform"], force=True).as_dict()
    kept = analysis.evaluate_log(log, ["uniform"], force=True).as_dict()
    assert whole["estimates"] == kept["estimates"]
    with pytest.raises(InvalidRequest, match="have lost its metadata"):
        analysis.evaluate_log(log.to_frame(), ["uniform"])


def test_errors_of_a_table_name_its_rows() -> None:
    wrong = rounds() | {"pscore": np.append(np.full(2999, 0.5), 1.5)}
    with pytest.raises(InvalidRequest, match="pscore: not usable in 1 rows, first in the table row 2999"):
        analysis.evaluate_log(pa.table(wrong), ["uniform"])
    spent = people().to_pandas().assign(spent="x")
    with pytest.raises(InvalidRequest, match="the table:2: spent"):
        analysis.evaluate_table(spent, arm="variant", outcomes=["spent"], control="a")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: analysis.evaluate_log([1, 2]), "rounds: a list is no table → give a path"),  # type: ignore[arg-type]
        (lambda: analysis.evaluate_log(pa.table(rounds()), ["uniform"], level=2.0), "level: 2 is no level"),
        (lambda: analysis.evaluate_log(pa.table(rounds()), ["uniform"], measure="nett"), "measure: 'nett' is not"),
        (lambda: analysis.evaluate_log(pa.table(rounds()), ["uniform"], app="travel"), "stage: app and stage go"),
        (lambda: analysis.evaluate_table(people(), arm="variant", outcomes="bought"), "outcomes: one text is no list"),
        (analysis.simulate, "app: nothing says who comes"),
        (lambda: analysis.simulate("travel", users=10), "users: too few"),
        (lambda: analysis.simulate("travel", logs=True), "out: logs need a folder"),
        (lambda: analysis.read_export("nowhere"), "folder: nowhere is not a folder"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("missing", ["pandas", "matplotlib"])
def test_without_the_extra_its_name_is_said(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = analysis.evaluate_log(pa.table(rounds()), ["uniform"])
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is not installed: pip install 'journey-bandit\[notebook\]'"):
        found.to_frame() if missing == "pandas" else found.plot()
