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
from bandit.errors import InvalidRequest, NotFound
from bandit.records import Settlement
from experiments.inference.diagnostics import Refusal
from experiments.inference.wording import bounds, number
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, UniformChoice
from journey_bandit import analysis
from journey_bandit.demos import example_ledger
from journey_bandit.evaluation.policy_table import print_policies
from journey_bandit.main import group
from journey_bandit.registry.shadows import ShadowComparison
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.policy_evidence import gather
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
    assert "money" not in printed, "no nudge was hardly ever drawn"
    assert [refusal._asdict() for refusal in found.silent] == printed["money_refused"]


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
        assert found.evaluated.shown.title == str(exported)
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


def summary(**told: Any) -> object:
    return analysis.evaluate_table(people(), arm="variant", outcomes=["bought"], control="a", **told)


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


def test_no_nudge_comes_first_whatever_else_was_asked_for() -> None:
    found = analysis.evaluate_log(pa.table(rounds()), ["uniform"], ["fixed:1", "none"])
    assert next(iter(found["uniform"].contrasts)) != "none"
    assert found.to_arrow().to_pylist()[0]["name"] == "none"
    assert "uniform: less none " in repr(found)


def test_without_no_nudge_the_lift_is_over_the_champion_as_in_the_command() -> None:
    found = analysis.evaluate_log(pa.table(rounds()), ["uniform"], ["fixed:1"])
    over, _ = drawn(found.plot())
    assert over == ("Over fixed:1", [found["uniform"].contrasts["fixed:1"].value])
    assert "over fixed:1</th>" in found._repr_html_()
    assert "uniform: less fixed:1 " in repr(found)


def priced(n: int = 2000, p_none: float = 0.01) -> Any:
    """A log of the travel app's cart: no nudge is drawn with `p_none`, two others share the rest."""
    rng, names = np.random.default_rng(4), ("none", "reminder", "price_freeze")
    p = np.array([p_none, (1.0 - p_none) / 2, (1.0 - p_none) / 2])
    action = rng.choice(3, n, p=p)
    reward = (rng.random(n) < 0.2 + 0.1 * (action > 0)).astype(float)
    told = {"action": np.array(names)[action], "reward": reward, "pscore": p[action]}
    return pa.table(told | {f"p_{name}": np.full(n, share) for name, share in zip(names, p, strict=True)})


def test_a_log_that_cannot_say_what_no_nudge_earns_claims_no_gain_over_it() -> None:
    told: dict[str, Any] = {"app": "travel", "stage": "cart"}
    found = analysis.evaluate_log(priced(), ["fixed:reminder"], ["none"], **told)
    assert [refusal.reason for refusal in found.silent] == ["ess", "conversions"]
    assert not found.refused
    assert "none" not in found.to_arrow().column("name").to_pylist()
    assert [title for title, _ in drawn(found.plot())] == ["Value"]
    page = found._repr_html_()
    assert "<strong>the log cannot say what no nudge earns:</strong> ess: " in page
    assert '<td style="text-align:left">fixed:reminder</td><td>–</td>' in page
    assert '<td style="text-align:left">none</td>' not in page
    assert "less none" not in repr(found)
    assert "the log cannot say what no nudge earns (ess, conversions)" in repr(found)
    fair = analysis.evaluate_log(priced(p_none=0.4), ["fixed:reminder"], ["none"], **told)
    assert not fair.silent
    assert "fixed:reminder: less none " in repr(fair)
    assert [title for title, _ in drawn(fair.plot())] == ["Over no nudge", "Value"]


def test_evidence_on_a_ledger_that_cannot_say_it_compares_nothing_with_no_nudge(ledger: Path) -> None:
    """No nudge was hardly ever drawn there: neither reviews nor shadows get a figure, but the reasons."""
    found = gather(str(ledger), "cart", None)
    assert [refusal.reason for refusal in found.monitored.silent] == ["support"]
    assert found.gain is None
    assert found.net.estimates
    assert "none" not in {*found.net.contrasts, *found.reward.contrasts}
    assert found.segments == {}
    shadow = ShadowComparison("3", 10, 1.0, 0.0, 0, found)
    assert (
        "not compared with no nudge: the log cannot say, support: no nudge was never shown outside" in shadow.sentence
    )
    assert not {"shadow_none", "shadow_lift"} & shadow.metrics.keys()


def test_the_example_ledger_may_be_written_twice_and_never_over_another(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    example_ledger.write(file, 300)
    once = analysis.evaluate_ledger(file, "cart", ["uniform"]).as_dict()
    assert analysis.evaluate_ledger(example_ledger.write(file, 300), "cart", ["uniform"]).as_dict() == once
    for other in ({"decisions": 200}, {"decisions": 300, "seed": 8}):
        with pytest.raises(InvalidRequest, match=r"shop.db holds other decisions already → give a new file"):
            example_ledger.write(file, **other)


def test_an_example_ledger_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "shop.db"
    with monkeypatch.context() as broken:
        broken.setattr(example_ledger, "_settlements", stopped)
        with pytest.raises(KeyboardInterrupt):
            example_ledger.write(file, 300)
    found = analysis.evaluate_ledger(example_ledger.write(file, 300), "cart", ["uniform"])
    whole = analysis.evaluate_ledger(example_ledger.write(tmp_path / "whole.db", 300), "cart", ["uniform"])
    assert found["uniform"].n == whole["uniform"].n > 200
    assert found["uniform"].estimates == whole["uniform"].estimates


def test_the_command_does_not_print_it_either(tmp_path: Path) -> None:
    parquet.write_table(priced(), tmp_path / "log.parquet")
    words = ("--policy", "fixed:reminder", "--against", "none", "--app", "travel", "--stage", "cart")
    done = CliRunner().invoke(group, ["evaluate", "--rounds", str(tmp_path / "log.parquet"), *words])
    assert "the log cannot say what no nudge earns: ess: " in done.stdout
    less = done.stdout[done.stdout.index("Less another policy") : done.stdout.index("2,000 rounds")]
    assert "logged" in less
    assert "none" not in less


def test_no_nudge_is_not_the_first_of_the_arms_that_a_log_happens_to_name() -> None:
    named = pa.table(rounds(named=True)).to_pandas()
    named["action"] = named["action"].replace("none", "letter")
    table = named.rename(columns={"p_none": "p_letter"})
    said = "the log has no arm 'none', so nothing says which one is no nudge → say fixed:ARM, one of letter, mail"
    for asked in ((["fixed:mail"], ["none"]), (["none"], [])):
        with pytest.raises(InvalidRequest) as caught:
            analysis.evaluate_log(table, *asked)
        assert str(caught.value) == f"policy: {said}"
    assert analysis.evaluate_log(table, ["fixed:mail"], ["fixed:letter"])["fixed:mail"].estimates


@pytest.mark.parametrize(
    ("policies", "against", "said"),
    [
        (["uniform"], [EvaluationPolicy("none", UniformChoice())], "policy: the name 'none' is reserved → call it"),
        ([EvaluationPolicy("logged", UniformChoice())], [], "policy: the name 'logged' is reserved"),
        (["uniform", EvaluationPolicy("uniform", UniformChoice())], [], "policy: two policies are called 'uniform'"),
        (["uniform"], ["fixed:1", "fixed:1"], "policy: two policies are called 'fixed:1'"),
        (["uniform"], [EvaluationPolicy("uniform", FixedArm(1))], "policy: two policies are called 'uniform'"),
    ],
)  # fmt: skip
def test_a_name_means_one_policy(policies: Any, against: Any, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        analysis.evaluate_log(pa.table(rounds()), policies, against)
    assert str(caught.value).startswith(said)


def test_a_ledger_is_closed_whatever_is_wrong_with_the_question(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = list[object]()
    monkeypatch.setattr(ledger_log, "open_store", lambda *a, **k: Closing(open_store(*a, **k), closed))
    for stage, policy in (("cart", "unifrom"), ("kart", "uniform")):
        with pytest.raises((InvalidRequest, NotFound)):
            analysis.evaluate_ledger(ledger, stage, [policy])
    assert len(closed) == 2


class Closing:
    """A store that notes that it was closed."""

    def __init__(self, store: Any, closed: list[object]):
        self._store, self._closed = store, closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        self._closed.append(self)
        self._store.close()


def test_a_simulation_gives_what_the_command_prints(tmp_path: Path) -> None:
    words = ("--app", "travel", "--policy", "uniform", "--policy", "fixed:reminder", "--users", 200, "--days", 4)
    more = ("--seeds", 2, "--holdout", 0.2, "--backend", "serial")
    printed = command("simulate", *words, *more, "--out", tmp_path / "out")
    size: dict[str, Any] = {"users": 200, "days": 4, "seeds": 2, "holdout": 0.2, "backend": "serial"}
    found = analysis.simulate("travel", ["uniform", "fixed:reminder"], **size)
    files = ("figures", "reports")
    assert found.as_dict() == {name: value for name, value in printed.items() if name not in files}
    assert found.to_arrow().column("vs_none").to_pylist() == [m["vs_none"] for m in printed["stages"]["cart"].values()]
    best = max(("uniform", "fixed:reminder"), key=lambda name: printed["stages"]["cart"][name]["vs_none"])
    over = printed["stages"]["cart"][best]["vs_none"]
    assert over < 0.0
    said = f"No nudge earns most of these policies. Next is {best}: {over:+.2f} ["
    assert found.sentence("cart").startswith(said)
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
    assert drawn(found.plot()) == [("Over no nudge", []), ("Value", [])]
    forced = analysis.evaluate_log(pa.table(wrong), ["fixed:1"], ["none"], force=True)
    assert "FORCED:" in forced._repr_html_()
    assert "FORCED" in repr(forced)
    assert set(forced.to_arrow().column("forced").to_pylist()) == {True}
    assert [label.get_text() for label in forced.plot().axes[0].get_yticklabels()] == ["fixed:1 (FORCED)"]
    sound = analysis.evaluate_log(pa.table(rounds()), ["fixed:1"], ["none"])
    assert set(sound.to_arrow().column("forced").to_pylist()) == {False}


def test_forced_figures_of_a_test_are_marked_wherever_they_are_shown() -> None:
    told: dict[str, Any] = {"arm": "variant", "outcomes": ["bought"], "control": "a"}
    few = people(60)
    found = analysis.evaluate_table(few, **told, force=True)
    assert [refusal.reason for refusal in found.refused] == ["few"]
    assert repr(found).startswith("ExperimentSummary(the table; control a; FORCED: bought: b ")
    assert set(found.to_arrow().column("forced").to_pylist()) == {True}
    assert [title for title, _ in drawn(found.plot())] == ["FORCED: bought, less a", "FORCED: bought, mean"]
    sound = analysis.evaluate_table(people(), **told)
    assert set(sound.to_arrow().column("forced").to_pylist()) == {False}
    assert "FORCED" not in repr(sound)


def test_the_sentence_of_a_forced_gain_says_that_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = {"app": "travel", "stage": "cart"}
    sound = analysis.evaluate_log(priced(p_none=0.4), ["fixed:reminder"], ["none"], **told)
    (one,), gains = sound.evaluations, sound.evaluated.shown.gains
    wrong = one._replace(refused=(Refusal("support", "why", "more"),))
    for evaluation, mark in ((one, ""), (wrong, "FORCED: ")):
        print_policies([evaluation], "none", "EUR", 0.95, gains)
        assert f"fixed:reminder: {mark}{gains['fixed:reminder'].sentence}." in capsys.readouterr().out


def test_of_several_comparisons_the_interval_for_all_is_shown_and_money_first() -> None:
    told: dict[str, Any] = {"arm": "variant", "outcomes": ["bought", "spent"], "control": "a", "values": {"spent": 1.0}}
    found = analysis.evaluate_table(people(), **told)
    bought, _, net = found.result.outcomes
    (one,), (money,) = bought.comparisons, net.comparisons
    assert one.together[0] < one.interval[0]
    said = repr(found)
    assert f"bought: b {number(one.difference, '+.4g')} {bounds(*one.together, '+.4g')}" in said
    assert said.index("net: b") < said.index("bought: b")
    axes = found.plot().axes[0]
    assert axes.get_title() == "net, less a"
    assert axes.get_xlabel() == "95 % intervals, all together"
    thick = next(line for line in axes.lines if line.get_linewidth() == 4.0)
    assert tuple(thick.get_xdata()) == money.together
    page = found._repr_html_()
    assert page.index("<strong>net</strong>") < page.index("<strong>bought</strong>")
    assert page.index("95 %, all together") < page.index("95 %, alone")


def test_adjusted_means_say_so() -> None:
    frame = people().to_pandas()
    frame["before"] = np.random.default_rng(2).normal(size=len(frame)) + frame.bought
    told: dict[str, Any] = {"arm": "variant", "outcomes": ["bought"], "control": "a"}
    found, plain = (analysis.evaluate_table(frame, **told, covariates=names) for names in (["before"], []))
    page = found._repr_html_()
    assert "Means: yes or no, adjusted by the covariates" in page
    assert ">mean, adjusted</th>" in page
    assert "b: without the covariates +" in page
    assert f"at any time: {found.result.outcomes[0].sequence}" in page
    assert drawn(found.plot())[1][0] == "bought, mean, adjusted"
    assert set(found.to_arrow().column("adjusted").to_pylist()) == {True}
    assert set(plain.to_arrow().column("adjusted").to_pylist()) == {False}
    assert "adjusted" not in plain._repr_html_()


@pytest.mark.parametrize("kind", [int, bool, float])
def test_arms_may_be_numbers_and_booleans(kind: type) -> None:
    frame = people().to_pandas()
    words = analysis.evaluate_table(
        frame, arm="variant", outcomes=["spent"], control="a", shares={"a": 0.5, "b": 0.5}, values={"spent": 1},
        costs={"b": 2.0},
    )  # fmt: skip
    frame["variant"] = (frame.variant == "b").astype(kind)
    coded = analysis.evaluate_table(
        frame, arm="variant", outcomes=["spent"], control=kind(0), shares={kind(0): 0.5, kind(1): 0.5},
        values={"spent": 1}, costs={kind(1): 2.0},
    )  # fmt: skip
    assert coded.result.control == ("false" if kind is bool else "0")
    assert [c.difference for one in coded.result.outcomes for c in one.comparisons] == [
        c.difference for one in words.result.outcomes for c in one.comparisons
    ]
    swapped = analysis.evaluate_table(frame, arm="variant", outcomes=["spent"], control=kind(1))
    assert swapped.result.control == ("true" if kind is bool else "1")


def test_arms_of_a_file_are_the_texts_of_its_cells(tmp_path: Path) -> None:
    frame, file = people().to_pandas(), tmp_path / "people.csv"
    frame["variant"] = frame.variant == "b"
    frame.to_csv(file, index=False)
    told: dict[str, Any] = {"arm": "variant", "outcomes": ["bought"]}
    assert analysis.evaluate_table(file, control="False", **told).result.control == "False"
    with pytest.raises(InvalidRequest, match=r"no arm is called 'false' → did you mean `False`\? known: False, True"):
        analysis.evaluate_table(file, control=False, **told)


def test_columns_that_no_text_can_hold_matter_only_where_they_are_named() -> None:
    told: dict[str, Any] = {"arm": "variant", "control": "a"}
    lists = people().append_column("seen", pa.array([[1, 2]] * 400)).append_column("at", pa.array([{"x": 1}] * 400))
    assert analysis.evaluate_table(lists, **told, outcomes=["bought"]).result.outcomes
    with pytest.raises(InvalidRequest, match="seen: its cells are of the type list<item: int64>"):
        analysis.evaluate_table(lists, **told, outcomes=["seen"])
    frame = people().to_pandas()
    with pytest.raises(InvalidRequest, match="the table cannot be read: Duplicate column names found"):
        analysis.evaluate_table(pandas.concat([frame, frame], axis=1), **told, outcomes=["bought"])
    with pytest.raises(InvalidRequest, match="mixed: the table cannot be read: Could not convert 'x'"):
        analysis.evaluate_table(frame.assign(mixed=[1, "x"] * 200), **told, outcomes=["bought"])
    periods = frame.assign(day=pandas.period_range("2026-01-01", periods=400, freq="D"))
    assert analysis.evaluate_table(periods, **told, outcomes=["bought"]).result.outcomes


def test_categories_of_polars_are_their_values() -> None:
    polars = pytest.importorskip("polars")
    test, log = polars.DataFrame(people()), polars.DataFrame(rounds(named=True))
    told: dict[str, Any] = {"arm": "variant", "control": "a", "outcomes": ["bought"]}
    for kind, arms in (
        (polars.Categorical, polars.Categorical),
        (polars.Enum(["a", "b"]), polars.Enum(["none", "mail"])),
    ):
        one = analysis.evaluate_table(test.with_columns(polars.col("variant").cast(kind)), **told)
        assert one.as_dict() == analysis.evaluate_table(test, **told).as_dict()
        two = analysis.evaluate_log(log.with_columns(polars.col("action").cast(arms)), ["fixed:mail"])
        assert two.as_dict() == analysis.evaluate_log(log, ["fixed:mail"]).as_dict()


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
        (lambda: analysis.evaluate_log(pa.table(rounds()), "uniform"), "policies: one text is no list → policies=["),
        (lambda: analysis.evaluate_log(pa.table(rounds()), ["uniform"], "none"), "against: one text is no list"),
        (lambda: analysis.evaluate_log(pa.table(rounds()), ["uniform"], workers=0), "workers: 0 is not possible"),
        (lambda: analysis.evaluate_ledger("nowhere", "cart", "uniform"), "policies: one text is no list"),
        (lambda: summary(level=95), "level: 95 is no level of intervals"),
        (lambda: summary(covariates="spent"), "covariates: one text is no list"),
        (lambda: summary(ranges={"bought": (100, 0)}), "ranges: 'bought' goes from 100 to 0 → the least first"),
        (lambda: analysis.simulate("travel", "uniform"), "policies: one text is no list"),
        (lambda: analysis.simulate("travel", holdout=1.0), "holdout: 1 is not possible → a number from 0 to 0.9"),
        (lambda: analysis.simulate("travel", days=10_000), "days: 10,000 is not possible → a number from 1 to 3,650"),
        (lambda: analysis.simulate("travel", workers=0), "workers: 0 is not possible → 1 or more"),
        (lambda: analysis.simulate("travel", seed=-1), "seed: -1 is not possible → 0 or more"),
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
