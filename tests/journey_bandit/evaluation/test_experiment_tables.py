"""`evaluate table` for people: what stands first, which interval to quote, and mistakes that are noticed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from journey_bandit.main import group

N = 4000
ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "experiments.md"
HILLSTROM = ROOT / "simulations" / "datasets" / "data" / "hillstrom_even_rows.csv.gz"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(group, [str(a) for a in arguments])
    return done.stdout if done.exception is None or isinstance(done.exception, SystemExit) else str(done.exception)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """10 % of a and 15 % of b buy, for 20 in the mean; `before` was measured before, `clicked` after the assignment."""
    rng, file = np.random.default_rng(5), tmp_path / "people.csv"
    rows = []
    for arm in rng.choice(["a", "b"], N):
        bought = rng.random() < (0.10 if arm == "a" else 0.15)
        clicked = rng.random() < (0.3 if arm == "a" else 0.4)
        rows.append(
            f"{arm},{int(bought)},{20.0 * bought + bought * rng.normal():.2f},{rng.normal():.3f},{int(clicked)}"
        )
    file.write_text("\n".join(["variant,bought,spent,before,clicked", *rows]) + "\n", encoding="utf-8")
    return file


def asked(file: Path, *more: str) -> tuple[object, ...]:
    return "evaluate", "table", file, "--arm", "variant", "--control", "a", "--shares", "a=1/2,b=50%", *more


def test_the_difference_comes_first_in_a_sentence_and_means_come_last(people: Path) -> None:
    shown = run(*asked(people, "--outcome", "bought"))
    first, sentence, *_ = shown.splitlines()
    assert first.endswith("people; control is a")
    found = re.fullmatch(
        r"bought: \+(.*) points \[\+(.*), \+(.*)\], b is higher than a \(p below 0.0001\): (.*) % in b, (.*) % in a",
        sentence,
    )
    assert found is not None, sentence
    value, low, high, b, a = map(float, found.groups())
    assert low < 5.0 < high
    assert value == pytest.approx(b - a, abs=0.11)  # of rounding
    assert shown.index("Less a: score") < shown.index("Other intervals") < shown.index("Means: yes or no")
    assert "95 %: quote this" in shown
    assert "all together" not in shown


def test_of_several_comparisons_the_interval_of_all_together_is_quoted_and_money_stands_first(people: Path) -> None:
    shown = run(*asked(people, "--outcome", "bought", "--outcome", "spent", "--value", "spent=1", "--cost", "b=.25"))
    sentences = [line.split(":")[0] for line in shown.splitlines()[1:4]]
    assert sentences == ["net", "bought", "spent"]
    assert "in money a person" in shown.splitlines()[1]
    assert shown.count("95 %, all together: quote") == 3
    assert "p, Holm" in shown


def test_means_that_are_adjusted_say_so_and_a_covariate_of_afterwards_is_named(people: Path) -> None:
    before = run(*asked(people, "--outcome", "bought", "--covariate", "before"))
    assert ", adjusted\n" in before
    assert "mean, adjusted" in before
    assert "covariates differ" not in before
    after = run(*asked(people, "--outcome", "bought", "--covariate", "before", "--covariate", "clicked"))
    (note,) = [line for line in after.splitlines() if "covariates differ" in line]
    assert "more than by chance: clicked (p = " in note
    assert "before (p" not in note
    assert after.index(note) < after.index("Less a")


def test_a_count_that_was_forgotten_is_noticed(tmp_path: Path) -> None:
    """Rows of days: with a column `users` they are refused, with `views`, which may be of one person, noted."""
    rows = [f"{'ab'[i % 2]},{1000 + i},{50 + i % 7}" for i in range(200)]
    for name in ("users", "views"):
        (tmp_path / "days.csv").write_text("\n".join([f"variant,{name},clicks", *rows]), encoding="utf-8")
        shown = run(*asked(tmp_path / "days.csv", "--outcome", "clicks"))
        said = f"rows look like sums of people: {name} goes to 1,199 and clicks to 56"
        assert f"{'refused: sums: ' if name == 'users' else 'note: '}{said}" in shown
        assert f"say --count {name}" in shown
        assert said not in run(*asked(tmp_path / "days.csv", "--outcome", "clicks", "--count", name))
    many = [f"{'ab'[i % 2]},{1 + i % 3},{min(i % 5, 1 + i % 3)}" for i in range(600)]
    (tmp_path / "parties.csv").write_text("\n".join(["variant,people,orders", *many]), encoding="utf-8")
    shown = run(*asked(tmp_path / "parties.csv", "--outcome", "orders"))
    assert "note: rows look like sums of people: people goes to 3 and orders to 3" in shown
    assert "refused" not in shown, "people come in parties of one to three"
    (tmp_path / "one.csv").write_text("\n".join(["variant,users,y", *["a,1,1", "b,1,0"] * 60]), encoding="utf-8")
    assert "rows look like" not in run(*asked(tmp_path / "one.csv", "--outcome", "y"))


def test_verdict_interval_and_p_of_a_sentence_say_the_same(tmp_path: Path) -> None:
    """Two arms, p of 0.04 and 0.026: by Holm the smaller is 0.052 of two outcomes and the other 0.04 of one."""
    rows = [f"{arm},{int(i < yes)}" for arm, yes in (("a", 200), ("b", 241), ("c", 236)) for i in range(1000)]
    (tmp_path / "t.csv").write_text("\n".join(["variant,bought", *rows]), encoding="utf-8")
    words = ("evaluate", "table", tmp_path / "t.csv", "--arm", "variant", "--outcome", "bought", "--control", "a")
    shown = run(*words)
    (said,) = [line for line in shown.splitlines() if "in c, 20 % in a" in line]
    found = re.fullmatch(r"bought: .* \[(.*), .*\], not distinguishable from no difference \(p (.*)\): .*", said)
    assert found is not None, said
    assert float(found[1]) < 0.0
    (one,) = [c for c in json.loads(run(*words, "--json"))["outcomes"][0]["comparisons"] if c["arm"] == "c"]
    assert one["p_holm"] < 0.06 < float(found[2])
    assert float(found[2]) == pytest.approx(2.0 * one["p"], abs=0.005)
    assert "95 %, alone" in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--shares", "a=.5,bb=.5"), "variant has 'b' → did you mean `b`?"),
        (("--shares", "a=1"), "no share is declared for the arm 'b'"),
        (("--control", "aa"), "control: no arm is called 'aa' → did you mean `a`?"),
        (("--cost", "bb=1"), "cost: there is no 'bb' → did you mean `b`?"),
        (("--cost", "b=1"), "give --value OUTCOME=MONEY for each outcome that is worth something; --value bought=1 if"),
        (("--outcome", "spent", "--range", "bought=0,1", "--range", "spend=0,9"), "did you mean `spent`?"),
    ],
)
def test_what_the_plan_gets_wrong_is_named_with_the_closest(people: Path, given: tuple[str, ...], said: str) -> None:
    asked = ("evaluate", "table", people, "--arm", "variant", "--control", "a", "--outcome", "bought", *given)
    assert said in run(*asked)


def test_a_mistake_of_many_rows_is_one_error_with_their_number(tmp_path: Path) -> None:
    rows = [f"{'ab'[i % 2]},{'x' if i % 3 == 0 else '1'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["variant,y", *rows]), encoding="utf-8")
    said = run(*asked(tmp_path / "t.csv", "--outcome", "y"))
    more = "'x' is not a number, or true or false, and in 19 more rows: 5, 8, 11, 14, 17, …"
    assert said == f"{tmp_path / 't.csv'}:2: y: {more} → a number, or true or false"


def test_a_point_among_decimal_commas_is_noted_by_line_and_column(tmp_path: Path) -> None:
    rows = [f"{'ab'[i % 2]};{i % 7},{i % 10}5" for i in range(200)]
    rows[9] = "b;1.719"
    (tmp_path / "t.csv").write_text("\n".join(["variant;spent", *rows]), encoding="utf-8")
    said = "note: column spent: 1.719 in line 11 is read as 1719, because a comma is the decimal mark of other numbers"
    assert said in run(*asked(tmp_path / "t.csv", "--outcome", "spent"))


def test_the_guide_shows_what_is_printed_of_the_hillstrom_emails() -> None:
    shares = "No E-Mail=1/3,Mens E-Mail=1/3,Womens E-Mail=1/3"
    plan = ("--control", "No E-Mail", "--shares", shares, "--no-sequence")
    said = run("evaluate", "table", HILLSTROM, "--arm", "segment", "--outcome", "visit", *plan)
    (shown,) = re.findall(r"^```text\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert "\n".join(said.splitlines()[1:3]) == shown.strip()
