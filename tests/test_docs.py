"""What README and docs tell people to type works, and what they show is what comes back."""

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
import pytest

from api.server import free_port
from api.settings import Settings
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from journey_bandit import processes
from journey_bandit.main import group
from simulations.scenario import Scenario
from tests.waiting import PATIENCE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def typed(page: Path) -> list[list[str]]:
    """Every command line of the page's shell blocks, as words."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [(page.name, words) for page in PAGES for words in typed(page)]
OURS = [words for _, words in COMMANDS if words[0] == "journey-bandit"]
OURS += [words[words.index("journey-bandit") :] for _, words in COMMANDS if words[:2] == ["docker", "run"]]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 12
    assert {words[0] for _, words in COMMANDS} == {"make", "curl", "pip", "journey-bandit", "docker"}


@pytest.mark.parametrize("words", [w for _, w in COMMANDS if w[0] == "make"], ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in targets


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]) -> None:
    command: click.Command = group
    rest = words[1:]
    while isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found is not None, words
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "word", sorted({w for p in PAGES for w in re.findall(r"`journey-bandit ([a-z ]+)", p.read_text())})
)
def test_commands_named_in_the_text_exist(word: str) -> None:
    assert group.get_command(click.Context(group), word.split(maxsplit=1)[0]) is not None


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_example_catalogue_has_no_mistakes() -> None:
    example, words, journey = blocks(ROOT / "docs" / "guides" / "catalogue.md", "toml")
    assert list(parse(example).stages) == ["cart"]
    said = parse(f"{example}\n{words}").stages["cart"].nudges["few_left"].content
    assert said is not msgspec.UNSET
    assert list(said.texts) == ["en", "de"]
    assert list(parse(f"{example}\n{journey}").journey.events) == ["added", "ordered", "refunded"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`make serve`, in memory."""
    folder, port = tmp_path_factory.mktemp("docs"), free_port("127.0.0.1")
    log = folder / "serve.log"
    where = ("--app", "travel", "--store", "memory://", "--port", str(port), "--dev", "--salt", "docs")
    with processes.stopping(server := processes.serve(*where, log=log)):
        processes.wait(server, f"http://127.0.0.1:{port}/health/ready", log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield client


def shape(value: Any) -> Any:
    """Field names and kinds, without values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_readme_example_gives_what_it_shows(service: httpx.Client) -> None:
    decide, report = [words for words in typed(ROOT / "README.md") if words[0] == "curl"]
    answer = service.post(decide[2].split("8080")[1], content=decide[4])
    assert answer.status_code == 200
    got = answer.json()
    (shown,) = [json.loads(block) for block in blocks(ROOT / "README.md", "json")]
    got.pop("duplicate")
    for part in ("nudge",):  # another draw shows another nudge
        assert set(got.pop(part)) == set(shown.pop(part))
    assert shape(got) == shape(shown)
    assert set(shown["propensities"]) == set(got["propensities"])
    for arm, p in shown["propensities"].items():  # with nothing learned, the numbers are the policy's prior
        assert got["propensities"][arm] == pytest.approx(p, abs=6e-4), arm
    body = json.loads(report[4]) | {"decision_id": got["decision_id"]}
    done = service.post(report[2].split("8080")[1], json=body)
    assert done.json() == {"recorded": True, "duplicate": False, "late": False}


def test_the_error_example_of_the_api_page_is_real(service: httpx.Client) -> None:
    (shown,) = [json.loads(block) for block in blocks(ROOT / "docs" / "guides" / "http_api.md", "json")]
    got = service.post("/v1/decisions", json={"stage": "cart", "user_id": "u", "context": {"prce": 1}})
    assert got.status_code == shown["status"]
    assert {key: got.json()[key] for key in ("type", "title")} == {key: shown[key] for key in ("type", "title")}
    (error,) = got.json()["errors"]
    assert error["fix"].startswith(shown["errors"][0]["fix"].rstrip("… "))
    assert (error["field"], error["problem"]) == (shown["errors"][0]["field"], shown["errors"][0]["problem"])


def test_the_example_of_the_monitoring_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "guides" / "monitoring.md"
    (program,), (shown,) = blocks(page, "python"), blocks(page, "text")
    exec(compile(program, str(page), "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == shown


def test_every_route_is_on_the_api_page(service: httpx.Client) -> None:
    text = (ROOT / "docs" / "guides" / "http_api.md").read_text(encoding="utf-8")
    for path in service.get("/docs/openapi.json").json()["paths"]:
        short = path.replace("{decision_id}", "{id}")
        assert short in text, path


NAMED = re.findall(r"`((?:bandit|api|experiments|simulations)\.[\w.]+)`", (ROOT / "docs" / "glossary.md").read_text())


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_what_the_glossary_names_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    holder = importlib.import_module(module)
    assert hasattr(holder, attribute) or importlib.util.find_spec(name) is not None


def test_what_a_service_and_its_experiments_need_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()}
    needed = [*project["dependencies"], *project["optional-dependencies"]["experiments"]]
    names = {re.split(r"[\[<>=!~; ]", one)[0].lower().replace("_", "-") for one in needed}
    assert len(names) >= 15
    assert names <= locked, names - locked


def test_every_setting_is_on_the_operations_page() -> None:
    text = (ROOT / "docs" / "guides" / "operations.md").read_text(encoding="utf-8")
    for name in Settings.__struct_fields__:
        assert f"_{name.upper()}`" in text, name


def test_the_readme_is_short() -> None:
    assert 350 < len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 450


def test_nothing_shipped_names_a_machine_or_an_index() -> None:
    """No lock file with addresses, no path of one machine."""
    for name in ("constraints.txt", "pyproject.toml", "Makefile"):
        assert "index-url" not in (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in (ROOT / name).read_text(encoding="utf-8").replace("sqlite://", "")


def test_the_catalogue_reference_says_every_field_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make docs` prints of the types that decode a catalogue: no field breaks it, no word of Python is left."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    fields = importlib.import_module("catalogue_fields")
    tables = {struct.__name__: fields.rows(struct) for struct in fields.reachable(Catalogue)}
    assert len(tables) > 30
    assert [row for row in tables["Stage"] if row[0] == "`loss`"] == [
        ("`loss`", "text", '`"2%"`', 'such as `"2%"`, `"none"`')
    ]
    assert [row[1:3] for row in tables["Logistic"] if row[0] == "`scales`"] == [
        ('`"declared"`, `"learned"`, `"slopes"`', "left out")
    ]
    for rows in tables.values():
        for _, kind, default, limits in rows:
            assert kind
            assert default
            assert not re.search(r"typing|msgspec|<class|UNSET|Unset", kind + default + limits)


def test_the_scenario_reference_has_every_field_with_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds numbers has a unit, and no unit is of a field that is gone."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    fields = importlib.import_module("catalogue_fields")
    units = importlib.import_module("scenario_fields").UNITS
    tables = {struct.__name__: fields.rows(struct) for struct in fields.reachable(Scenario)}
    assert set(tables) == set(units)
    for name, rows in tables.items():
        numbers = {row[0].strip("`") for row in rows if "number" in row[1]}
        assert numbers == set(units[name]), name
        assert all(kind and default for _, kind, default, _ in rows)
    text = "\n".join(importlib.import_module("scenario_fields").section(Scenario))
    assert "| `season` | number | logits | `0` |" in text


def suffix(page: Path) -> str:
    """Suffix of a page of the site: of a notebook in its folder, of Markdown elsewhere."""
    return "ipynb" if page.parent.name == "notebooks" else "md"


def test_every_page_is_in_a_table_of_contents() -> None:
    """As the site demands, which is built apart."""
    docs = ROOT / "docs"
    named = set[Path]()
    for page in sorted(docs.rglob("*.md")):
        for table in re.findall(
            r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            lines = re.findall(r"^\w[\w/.-]*$", table, re.MULTILINE)
            found = [(page.parent / line.removesuffix(".md")).resolve() for line in lines]
            named |= {one.with_name(f"{one.name}.{suffix(one)}") for one in found}
    pages = {page.resolve() for page in docs.rglob("*.md") if page.parent.name != "_inventories"}
    pages |= {page.resolve() for page in docs.rglob("*.ipynb")}
    pages.remove((docs / "index.md").resolve())
    assert sorted(pages - named) == []
    assert all(page.is_file() for page in named)
