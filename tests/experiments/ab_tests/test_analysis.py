"""A/B tests from plain tables: a real experiment with the figures of scipy, assignment, families, money, refusals."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bandit.errors import InvalidRequest
from experiments.ab_tests.analysis import ArmComparison, ExperimentResult, analyse
from experiments.ab_tests.experiment_plan import ExperimentPlan
from experiments.ab_tests.experiment_table import TableColumns, read_table

HILLSTROM = Path(__file__).parents[3] / "simulations" / "datasets" / "data" / "hillstrom_even_rows.csv.gz"
THIRDS = {"Mens E-Mail": 1 / 3, "No E-Mail": 1 / 3, "Womens E-Mail": 1 / 3}


def hillstrom(*outcomes: str, covariates: tuple[str, ...] = (), **plan: object) -> ExperimentResult:
    table = read_table(HILLSTROM, TableColumns("segment", outcomes, covariates=covariates))
    return analyse(table, ExperimentPlan("No E-Mail", follow=False, **plan))  # type: ignore[arg-type]


def write(path: Path, names: str, rows: list[str]) -> Path:
    path.write_text("\n".join([names, *rows]) + "\n", encoding="utf-8")
    return path


def two_arms(path: Path, n: int = 400, *, drop: int = 0) -> Path:
    rng = np.random.default_rng(1)
    arm = np.arange(n) % 2
    rows = [f"{'ab'[a]},{int(rng.random() < 0.2 + 0.1 * a)},{rng.exponential(10.0):.3f}" for a in arm]
    return write(path, "arm,bought,spent", rows[drop:])


def shuffled(rows: list[str]) -> list[str]:
    """The rows in an order that chance made, as it assigns arms."""
    return [rows[i] for i in np.random.default_rng(7).permutation(len(rows))]


def analysed(path: Path, *outcomes: str, **plan: object) -> ExperimentResult:
    return analyse(read_table(path, TableColumns("arm", outcomes)), ExperimentPlan("a", **plan))  # type: ignore[arg-type]


def only(found: ExperimentResult) -> ArmComparison:
    ((comparison,),) = (outcome.comparisons for outcome in found.outcomes)
    return comparison


def test_a_real_experiment_has_the_figures_of_its_tables() -> None:
    """Hillstrom's e-mails, even rows: counts by hand, spend as scipy has it."""
    with gzip.open(HILLSTROM, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    spend = {arm: np.array([float(r["spend"]) for r in rows if r["segment"] == arm]) for arm in THIRDS}
    found = hillstrom("visit", "spend", shares=THIRDS)
    assert dict(zip(found.arms, found.people, strict=True)) == {arm: len(part) for arm, part in spend.items()}
    visits, amounts = found.outcomes
    yes = {arm.arm: round(arm.mean * arm.n) for arm in visits.arms}
    assert yes == {"Mens E-Mail": 1974, "No E-Mail": 1145, "Womens E-Mail": 1627}
    for one in amounts.comparisons:
        known = stats.ttest_ind(spend[one.arm], spend["No E-Mail"], equal_var=False)
        assert one.p == pytest.approx(known.pvalue, rel=1e-8)
        assert one.interval == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-8)
    mens = visits.comparisons[0]
    assert mens.lift == pytest.approx((1974 / 10778) / (1145 / 10586) - 1.0)
    assert found.family == 4
    assert found.refused == ()
    assert found.shares is not None
    assert found.shares.p == pytest.approx(stats.chisquare(found.people).pvalue)
    assert [note for note in found.notes if "skewed" in note]


def test_all_comparisons_are_one_family() -> None:
    found = hillstrom("visit", "conversion", "spend")
    compared = [one for outcome in found.outcomes for one in outcome.comparisons]
    order = np.argsort([one.p for one in compared])
    assert compared[order[0]].p_holm == pytest.approx(6 * compared[order[0]].p)
    assert compared[order[-1]].p_holm == pytest.approx(compared[order[-1]].p)
    alone = analyse(
        read_table(HILLSTROM, TableColumns("segment", ("spend",))),
        ExperimentPlan("No E-Mail", level=1 - 0.05 / 6, follow=False),
    )
    assert [one.together for one in found.outcomes[2].comparisons] == [
        pytest.approx(one.interval) for one in alone.outcomes[0].comparisons
    ]


def test_covariates_move_the_estimate_little_and_are_said() -> None:
    found = hillstrom("visit", covariates=("recency", "history", "mens", "channel"))
    plain = hillstrom("visit").outcomes[0].comparisons
    for one, without in zip(found.outcomes[0].comparisons, plain, strict=True):
        assert one.plain == pytest.approx((without.difference, *without.interval))
        assert one.difference == pytest.approx(without.difference, abs=0.002)
        assert one.interval[1] - one.interval[0] < without.interval[1] - without.interval[0]
    assert "Lin" in found.outcomes[0].method
    assert not any("covariates differ" in note for note in found.notes)
    after = hillstrom("spend", covariates=("visit",))
    assert any("measured before the assignment" in note for note in after.notes)


def test_sums_of_people_give_what_the_people_give(tmp_path: Path) -> None:
    people = two_arms(tmp_path / "people.csv")
    rows = [line.split(",") for line in people.read_text().splitlines()[1:]]
    days = []
    for day in range(4):
        for arm in "ab":
            mine = [row for i, row in enumerate(rows) if i % 4 == day and row[0] == arm]
            spent = np.array([float(row[2]) for row in mine])
            days.append(f"{arm},{len(mine)},{sum(int(r[1]) for r in mine)},{spent.sum()},{(spent**2).sum()}")
    sums = write(tmp_path / "sums.csv", "arm,n,bought,spent,squares", [d for d in days if d.split(",")[1] != "0"])
    columns = TableColumns("arm", ("bought", "spent"), "n", squares={"spent": "squares"})
    one, two = analyse(read_table(sums, columns), ExperimentPlan("a")), analysed(people, "bought", "spent")
    for left, right in zip(one.outcomes, two.outcomes, strict=True):
        assert left.kind == right.kind
        assert left.comparisons[0].interval == pytest.approx(right.comparisons[0].interval)
        assert left.comparisons[0].p == pytest.approx(right.comparisons[0].p)
    assert any("count people instead" in note for note in one.notes)


def test_net_is_what_outcomes_are_worth_less_what_arms_cost(tmp_path: Path) -> None:
    found = analysed(two_arms(tmp_path / "t.csv"), "bought", worth={"bought": 30.0}, cost={"b": 2.0})
    bought, net = (outcome.comparisons[0] for outcome in found.outcomes)
    assert net.difference == pytest.approx(30.0 * bought.difference - 2.0)
    assert found.family == 2
    assert net.interval == pytest.approx([30.0 * end - 2.0 for end in bought.interval], abs=0.1)  # Welch, not score


def test_net_of_sums_is_net_of_people(tmp_path: Path) -> None:
    people = two_arms(tmp_path / "people.csv")
    rows = [line.split(",") for line in people.read_text().splitlines()[1:]]
    lines = []
    for arm in "ab":
        said = [int(row[1]) for row in rows if row[0] == arm]
        lines.append(f"{arm},{len(said)},{sum(said)}")
    sums = read_table(write(tmp_path / "sums.csv", "arm,n,bought", lines), TableColumns("arm", ("bought",), "n"))
    plan = ExperimentPlan("a", worth={"bought": 30.0}, cost={"a": 1.0, "b": 20.0})
    of_people = analysed(people, "bought", worth={"bought": 30.0}, cost={"a": 1.0, "b": 20.0})
    assert analyse(sums, plan).outcomes[1].comparisons[0].interval == pytest.approx(
        of_people.outcomes[1].comparisons[0].interval
    )


def test_there_is_no_lift_of_a_control_that_hardly_converts(tmp_path: Path) -> None:
    rows = ["a,0"] * 199 + ["a,1"] + ["b,0"] * 180 + ["b,1"] * 20
    one = only(analysed(write(tmp_path / "t.csv", "arm,y", rows), "y"))
    assert (one.lift, one.lift_interval) == (None, None)
    assert one.interval[0] > 0.0


def test_an_outcome_that_nobody_of_an_arm_has_is_left_out_if_forced(tmp_path: Path) -> None:
    rows = ["a,1,1"] * 60 + ["b,1,"] * 60
    found = analysed(write(tmp_path / "t.csv", "arm,y,z", rows), "y", "z", force=True)
    assert [outcome.name for outcome in found.outcomes] == ["y"]
    assert "z: fewer than 3 people of an arm have a value, so it is left out" in found.notes


def test_there_is_no_lift_of_a_control_near_0(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = [f"{'ab'[i % 2]},{rng.normal(0.1, 3.0)}" for i in range(400)]
    one = only(analysed(write(tmp_path / "t.csv", "arm,gain", rows), "gain"))
    assert (one.lift, one.lift_interval) == (None, None)
    assert "not distinguishable from 0" in one.no_lift
    assert one.interval[0] < one.difference < one.interval[1]


def test_unequal_shares_are_noted_and_then_refused(tmp_path: Path) -> None:
    """Planned .5 / .5: 520 and 680 people are a note (p = 4e-6), 200 and 400 a refusal."""
    for n, m, refused in ((520, 680, False), (200, 400, True)):
        rows = ["a,0"] * (n - 30) + ["a,1"] * 30 + ["b,0"] * (m - 30) + ["b,1"] * 30
        found = analysed(write(tmp_path / "t.csv", "arm,bought", rows), "bought", shares={"a": 0.5, "b": 0.5})
        assert found.shares is not None
        assert found.shares.p == pytest.approx(stats.chisquare([n, m]).pvalue)
        assert ([r.reason for r in found.refused] == ["shares"]) == refused
        assert bool(found.outcomes) != refused
        assert any("declared are 50.00, 50.00 %" in note for note in found.notes)
    forced = analysed(tmp_path / "t.csv", "bought", shares={"a": 0.5, "b": 0.5}, force=True)
    assert (forced.forced, len(forced.outcomes)) == (True, 1)


def test_a_table_that_cannot_answer_says_what_is_missing(tmp_path: Path) -> None:
    one = analysed(write(tmp_path / "one.csv", "arm,bought", ["a,1"] * 90), "bought")
    assert [r.reason for r in one.refused] == ["arms"]
    few = analysed(write(tmp_path / "few.csv", "arm,bought", ["a,1", "a,0"] * 40 + ["b,1"] * 49), "bought")
    assert few.refused[0].detail == "arms with fewer than 50 people: b 49"
    rows = two_arms(tmp_path / "t.csv").read_text().splitlines()[1:]
    rows[4], rows[7] = "a,,5", "b,NA,5"
    gone = analysed(write(tmp_path / "gone.csv", "arm,bought,spent", rows), "bought", "spent")
    assert [r.reason for r in gone.refused] == ["missing"]
    assert "bought has no value in 2 rows" in gone.refused[0].detail
    assert gone.refused[0].detail.endswith("line 6, 9")
    assert gone.outcomes == ()


def test_a_plan_of_another_table_is_refused_by_name(tmp_path: Path) -> None:
    file = two_arms(tmp_path / "t.csv")
    table = read_table(file, TableColumns("arm", ("bought", "spent")))
    for plan, said in (
        (ExperimentPlan(), "give --control with one of a, b"),
        (ExperimentPlan("c"), "no arm is called 'c'"),
        (ExperimentPlan("a", cost={"c": 1.0}, worth={"bought": 1.0}), "cost: there is no 'c'"),
        (ExperimentPlan("a", cost={"b": 1.0}), "nothing says what the outcomes are worth"),
        (ExperimentPlan("a", worth={"bougth": 1.0}), "did you mean `bought`"),
        (ExperimentPlan("a", shares={"a": 0.5}), "none is declared for 'b'"),
        (ExperimentPlan("a", shares={"a": 0.5, "b": 0.6}), "they sum to 1.1"),
        (ExperimentPlan("a", shares={"a": 0.5, "b": 0.5}, ranges={"spent": (0, 1)}), "spent goes from"),
    ):
        with pytest.raises(InvalidRequest) as error:
            analyse(table, plan)
        assert said in str(error.value)


def test_sequences_follow_what_is_known(tmp_path: Path) -> None:
    """Shares, order, a range: betting; yes or no alone: totals; amounts without a range: none, and how to get one."""
    names, *rows = two_arms(tmp_path / "t.csv", 2000).read_text().splitlines()
    file, halves = write(tmp_path / "t.csv", names, shuffled(rows)), {"a": 0.5, "b": 0.5}
    both = analysed(file, "bought", "spent", shares=halves, ranges={"spent": (0.0, 200.0)}, ordered=True)
    assert all("betting" in outcome.sequence for outcome in both.outcomes)
    for outcome in both.outcomes:
        (one,) = outcome.comparisons
        assert one.sequence is not None
        assert one.sequence[0] < one.together[0] < one.together[1] < one.sequence[1]
    bought, spent = analysed(file, "bought", "spent").outcomes
    assert bought.sequence.startswith("beta-binomial")
    assert spent.comparisons[0].sequence is None
    assert "--range spent=LOW,HIGH" in spent.sequence


def test_the_order_of_the_rows_means_nothing_unless_it_is_said_to(tmp_path: Path) -> None:
    """Without --ordered: the same sequence, of totals, from rows in any order; with it, rows by arm are refused."""
    names, *rows = two_arms(tmp_path / "t.csv", 1000).read_text().splitlines()
    halves, found = {"a": 0.5, "b": 0.5}, []
    for order in (rows, sorted(rows), shuffled(rows)):
        file = write(tmp_path / "t.csv", names, order)
        found.append(analysed(file, "bought", shares=halves).outcomes[0])
    assert found[0] == found[1] == found[2]
    assert found[0].sequence.startswith("beta-binomial")
    for order, said in ((sorted(rows), "a stand together"), (rows, "a alternate")):
        with pytest.raises(InvalidRequest, match=f"ordered: rows of {said} more than chance.*leave --ordered out"):
            analysed(write(tmp_path / "t.csv", names, order), "bought", shares=halves, ordered=True)


def test_an_order_needs_shares_and_people(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="ordered: no shares are declared"):
        analysed(two_arms(tmp_path / "t.csv"), "bought", ordered=True)
    sums = read_table(write(tmp_path / "sums.csv", "arm,n,y", ["a,90,9", "b,90,9"]), TableColumns("arm", ("y",), "n"))
    with pytest.raises(InvalidRequest, match="ordered: sums of people have no order"):
        analyse(sums, ExperimentPlan("a", shares={"a": 0.5, "b": 0.5}, ordered=True))


def test_a_sequence_that_no_difference_fits_is_left_out(tmp_path: Path) -> None:
    """Shares declared that are not those of the rows, and a forced answer: the bounds would cross."""
    rng = np.random.default_rng(8)
    rows = [f"{'ab'[a]},{int(rng.random() < 0.3 + 0.2 * a)}" for a in rng.integers(0, 2, 2000)]
    file = write(tmp_path / "t.csv", "arm,bought", rows)
    found = analysed(file, "bought", shares={"a": 0.1, "b": 0.9}, ordered=True, force=True)
    assert only(found).sequence is None
    assert "none of b: no difference fits" in found.outcomes[0].sequence


def test_amounts_far_from_0_vary_as_they_do_near_it(tmp_path: Path) -> None:
    """Times since 1970, 1.7e9 ± 1 s: the interval is that of the same amounts less 1.7e9."""
    rng = np.random.default_rng(9)
    near = np.round(rng.normal(0.0, 1.0, 400), 3)
    found = []
    for moved in (0.0, 1.7e9):
        rows = [f"{'ab'[i % 2]},{moved + value:.3f}" for i, value in enumerate(near)]
        found.append(only(analysed(write(tmp_path / "t.csv", "arm,spent", rows), "spent")).interval)
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def test_sums_that_rounding_has_eaten_are_refused(tmp_path: Path) -> None:
    far = 1.7e9 + np.random.default_rng(10).normal(size=(2, 200))
    for moved, reasons in ((0.0, ["digits"]), (1.7e9, [])):
        near = far - moved
        days = [f"{'ab'[a]},200,{near[a].sum()},{(near[a] ** 2).sum()}" for a in range(2)]
        columns = TableColumns("arm", ("spent",), "n", squares={"spent": "squares"})
        table = read_table(write(tmp_path / "sums.csv", "arm,n,spent,squares", days), columns)
        assert [refusal.reason for refusal in analyse(table, ExperimentPlan("a")).refused] == reasons


def test_people_who_come_back_are_covered_only_as_people(tmp_path: Path) -> None:
    """60 people an arm with 1 to 9 rows each, alike within a person: of 300 tests without a difference, 5 % err by
    person (below 12.4 % with 1 − 1e-6), far more by row.
    """
    rng, wrong, file = np.random.default_rng(6), np.zeros(2), tmp_path / "t.csv"
    for _ in range(300):
        each = rng.integers(1, 10, 120)
        said = rng.normal(10.0, 4.0, 120)
        rows = [f"u{i},{'ab'[i % 2]},{said[i] + rng.normal():.4f}" for i in range(120) for _ in range(each[i])]
        write(file, "who,arm,spent", rows)
        for place, user in enumerate(("who", "")):
            table = read_table(file, TableColumns("arm", ("spent",), user=user))
            wrong[place] += only(analyse(table, ExperimentPlan("a", follow=False))).p < 0.05
    assert wrong[0] / 300 < 0.124
    assert wrong[1] / 300 > 0.2
