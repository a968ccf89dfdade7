"""A policy of an installed package: named in a catalogue, served, learned, proved, evaluated, simulated; and what is
said where it is not installed. The package is that of the tutorial, laid out as pip lays it out.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from api.server import free_port
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse, read_shipped, read_stage, shipped
from bandit.catalogue.model import Stage
from bandit.errors import CatalogueError, LedgerError, PolicyError, SnapshotError
from bandit.policies import Linear, Uniform, registry
from bandit.policies.protocol import ArmEconomics, ExactSites
from bandit.snapshot import Snapshot, pack, unpack
from journey_bandit import processes
from journey_bandit.main import main
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "fixtures" / "softmax-policy"
PAGE = ROOT / "docs" / "tutorials" / "own_policy.md"
CATALOGUE = PACKAGE / "shop.toml"
DECISIONS = 500
TAUGHT = 150  # decisions before the snapshot that is evaluated on the rest


def lay_out(folder: Path) -> Path:
    """The package as it lies in site-packages after `pip install`."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = folder / f"softmax_policy-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(lines))
    shutil.copy(PACKAGE / "softmax_policy.py", folder)
    return folder


def run(*arguments: Any, path: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which finds packages in `path`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [path, ROOT] if path else [ROOT]))}
    words = [sys.executable, "-m", "journey_bandit", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, cwd=ROOT)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """inside(*arguments, status): what the program printed that ran in this process, where what it says is proved and
    not what it finds.
    """
    handler = signal.getsignal(signal.SIGTERM)

    def run_inside(*arguments: Any, status: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["journey-bandit", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            ended = 0
        except SystemExit as error:
            ended = int(error.code or 0)
        printed = capsys.readouterr()
        assert ended == status, printed.out + printed.err
        return printed

    yield run_inside
    signal.signal(signal.SIGTERM, handler)


class Played(NamedTuple):
    """What a service of the catalogue left."""

    site: Path
    store: str
    snapshot: Path
    decision: str
    policy: dict[str, Any]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A service with the package installed: decisions, rewards that favour the discount, a snapshot in between."""
    folder = tmp_path_factory.mktemp("own")
    site, port, log = lay_out(folder / "site"), free_port("127.0.0.1"), folder / "serve.log"
    store, snapshot, ask = f"sqlite:///{folder / 'shop.db'}", folder / "snapshot.zip", {"stage": "cart"}
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
        options = ("--app", str(CATALOGUE), "--store", store, "--port", str(port), "--dev", "--salt", "docs")
        with processes.stopping(server := processes.serve(*options, log=log)):
            processes.wait(server, f"http://127.0.0.1:{port}/health/ready", log)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                for n in range(DECISIONS):
                    made = client.post("/v1/decisions", json=ask | {"user_id": f"u{n}", "context": {"items": n % 7}})
                    assert made.status_code == 200, made.text
                    arm = made.json()["nudge"]["id"]
                    value = int(n % 10 < {"none": 1, "reminder": 2, "discount": 8}[arm])
                    told = {"decision_id": made.json()["decision_id"], "kind": "reward", "value": value}
                    assert client.post("/v1/outcomes", json=told).status_code == 200
                    if n == TAUGHT:
                        client.get("/v1/policies", params={"wait": True})
                        snapshot.write_bytes(client.get("/v1/policies/cart/snapshot").content)
                policy = client.get("/v1/policies", params={"wait": True}).json()["policies"][0]
    return Played(site, store, snapshot, made.json()["decision_id"], policy)


def test_it_is_served_and_learns(played: Played) -> None:
    assert (played.policy["stage"], played.policy["version"]) == ("cart", DECISIONS)


def test_what_it_learned_and_decided_is_proved_from_the_ledger(played: Played) -> None:
    done = run("rebuild", "--store", played.store, "--verify", "--receipts", 100, "--salt", "docs", path=played.site)
    assert "equal" in done.stdout
    assert "receipts: 0 of 100 differ" in done.stdout
    receipt = run("receipt", "--store", played.store, played.decision, "--salt", "docs", path=played.site)
    assert "recomputed: equal, bit for bit" in receipt.stderr


def test_its_snapshot_is_evaluated_on_the_ledger(played: Played) -> None:
    ledger = ("--ledger", played.store.removeprefix("sqlite:///"), "--stage", "cart", "--against", "uniform", "--json")
    done = run("evaluate", *ledger, "--policy", played.snapshot, path=played.site)
    found = json.loads(done.stdout)
    assert "shop/cart" in done.stdout
    assert found


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_it_is_simulated_also_in_worker_processes(tmp_path: Path, played: Played, backend: str) -> None:
    options = ("--users", 200, "--days", 3, "--seeds", 1, "--workers", 2, "--out", tmp_path, "--json")
    chosen = ("--policy", "softmax:temperature=0.3", "--policy", "fixed:none", "--backend", backend)
    done = run("simulate", "--app", "travel", *chosen, *options, path=played.site)
    assert "softmax:temperature=0.3" in json.loads(done.stdout)["stages"]["cart"]


def test_a_table_is_replayed_through_it(tmp_path: Path, played: Played) -> None:
    rows = "\n".join(f"{n % 7},{'yes' if n % 7 > 3 else 'no'}" for n in range(200))
    (tmp_path / "table.csv").write_text(f"size,big\n{rows}\n", encoding="utf-8")
    words = ("replay", "--csv", tmp_path / "table.csv", "--label", "big", "--rounds", 200, "--seeds", 1, "--json")
    done = run(*words, "--policy", "softmax", "--set", "temperature=0.2", path=played.site)
    assert json.loads(done.stdout)
    assert "'softmax' is not one of" in run(*words, "--policy", "softmax", status=2).stderr


def test_it_keeps_the_contract(played: Played, tmp_path: Path) -> None:
    """As its author runs it: from the package's own folder, without the configuration of this repository."""
    shutil.copy(PACKAGE / "contract_of_softmax.py", tmp_path / "test_softmax.py")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(played.site), str(ROOT)])}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_softmax.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(r"20 passed, 2 skipped", done.stdout), done.stdout


# -- where it is not installed -----------------------------------------------------------------------------------------


def test_every_command_says_in_one_line_which_policy_is_missing_and_what_to_do(played: Played) -> None:
    ledger = ("--ledger", played.store.removeprefix("sqlite:///"), "--stage", "cart")
    for words in (
        ("receipt", "--store", played.store, played.decision),
        ("rebuild", "--store", played.store, "--verify"),
        ("evaluate", *ledger, "--policy", "uniform"),
        ("serve", "--app", "travel", "--store", played.store, "--dev"),
    ):
        (line,) = run(*words, status=1).stderr.splitlines()
        assert line.startswith("error: the ledger declares stage 'cart' with a policy that cannot be used: "), words
        assert "no policy 'softmax' is installed → install the package that provides it" in line


def test_a_snapshot_of_it_is_refused_by_name(played: Played) -> None:
    with pytest.raises(SnapshotError, match=r"shop/cart cannot be used.*'softmax' is installed → install the package"):
        from_file(played.snapshot)


def from_file(path: Path) -> Snapshot:
    from bandit.snapshot import from_zip

    return from_zip(path.read_bytes())


def test_a_catalogue_that_names_it_gets_the_known_names_and_the_way(played: Played) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(CATALOGUE.read_text(encoding="utf-8"))
    (mistake,) = caught.value.mistakes
    assert (mistake.field, mistake.problem) == ("stages.cart.policy.name", "unknown: 'softmax'")
    assert "uniform; or install the package that provides it" in mistake.fix


# -- the registry ------------------------------------------------------------------------------------------------------


class Halves(Uniform, frozen=True, tag="halves", tag_field="name", forbid_unknown_fields=True):
    """Uniform by another name."""

    width: float = 0.5

    def __post_init__(self) -> None:
        if self.width > 1.0:
            raise ValueError("width is above 1")


class Slack(msgspec.Struct, ExactSites, frozen=True, tag="slack", tag_field="name"):
    """Takes any field."""

    def posterior(self, belief: Any, arms: ArmEconomics) -> Any:
        raise NotImplementedError


class Bare(msgspec.Struct, frozen=True, tag="bare", tag_field="name", forbid_unknown_fields=True):
    """No policy."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered in a test is forgotten after it."""
    for name, empty in (("_sources", list), ("_entries", dict), ("_classes", dict)):
        monkeypatch.setattr(registry, name, empty())


def offered(**classes: Any) -> Callable[..., list[Any]]:
    """A source of entry points."""

    def load(kind: Any) -> Any:
        if isinstance(kind, Exception):
            raise kind
        return kind

    def source(*, group: str) -> list[Any]:
        assert group == "journey_bandit.policies"
        return [
            SimpleNamespace(name=name, value=f"mine:{name}", load=lambda kind=kind: load(kind))
            for name, kind in classes.items()
        ]

    return source


def declared(policy: str) -> str:
    return CATALOGUE.read_text(encoding="utf-8").replace('{ name = "softmax", temperature = 0.2 }', policy)


def mistakes(policy: str) -> list[tuple[str, str, str]]:
    with pytest.raises(CatalogueError) as caught:
        parse(declared(policy))
    return [(m.field.removeprefix("stages.cart."), m.problem, m.fix) for m in caught.value.mistakes]


def test_an_installed_policy_is_decoded_as_strictly_as_a_built_in_one() -> None:
    registry.search(offered(halves=Halves))
    assert parse(declared('{ name = "halves", width = 0.25 }')).stages["cart"].policy == Halves(0.25)
    assert mistakes('{ name = "halves", wdth = 1.0, width = "a" }') == [
        ("policy.wdth", "unknown key", "did you mean `width`? known: width"),
        ("policy.width", "Expected `float`, got `str`", "write a number here"),
    ]
    assert mistakes('{ name = "halves", width = 2.0 }') == [("policy", "width is above 1", "write other values here")]
    ((field, problem, fix),) = mistakes('{ name = "halfs" }')
    assert (field, problem) == ("policy.name", "unknown: 'halfs'")
    assert fix.startswith("did you mean `halves`? known: beta, ")
    assert fix.endswith("or install the package that provides it")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (dict, "is not a msgspec.Struct"),
        (Slack, "does not forbid unknown fields"),
        (Bare, "lacks link, rows, design, sums, weighted_sums, sites, provisional, posterior, message"),
        (Uniform, "has the tag name = 'uniform'"),
        (ImportError("no such module"), "cannot be imported: ImportError('no such module')"),
    ],
)
def test_a_class_that_is_no_policy_is_a_mistake_where_it_is_named_and_nowhere_else(kind: Any, problem: str) -> None:
    name = kind.__struct_config__.tag if kind in (Slack, Bare) else "strange"
    registry.search(offered(**{name: kind}))
    ((field, said, fix),) = mistakes(f'{{ name = "{name}" }}')
    assert field == "policy.name"
    assert problem in said
    assert name in said
    assert fix
    assert parse(declared('{ name = "linear" }')).stages["cart"].policy == Linear()


def test_two_packages_for_one_name_are_refused_by_name_and_one_package_found_twice_is_one() -> None:
    registry.search(offered(halves=Halves))
    registry.search(offered(halves=Halves))
    assert registry.named("halves") is Halves

    def other(*, group: str) -> list[Any]:
        return [SimpleNamespace(name="twice", value=f"{one}:Twice", load=lambda: Halves) for one in ("one", "two")]

    registry.search(other)
    with pytest.raises(PolicyError, match="two packages provide 'twice': one:Twice and two:Twice → uninstall one"):
        registry.named("twice")


def test_a_class_is_registered_for_a_notebook_but_not_under_a_name_that_is_taken() -> None:
    assert registry.register(Halves) is Halves
    assert registry.register(Halves) is Halves
    assert registry.named("halves") is Halves
    taken = msgspec.defstruct("Mine", [], frozen=True, tag="linear", tag_field="name", forbid_unknown_fields=True)
    with pytest.raises(PolicyError, match="'linear' is Linear already"):
        registry.register(taken)


def with_halves() -> Stage:
    registry.search(offered(halves=Halves))
    return parse(declared('{ name = "halves", width = 0.25 }')).stages["cart"]


def test_stages_and_snapshots_come_back_as_they_were(tmp_path: Path) -> None:
    stage = with_halves()
    assert read_stage(msgspec.to_builtins(stage)) == stage
    catalogue = parse(declared('{ name = "halves", width = 0.25 }'))
    snapshot = Snapshot.untrained(catalogue, "cart")
    assert unpack(pack(snapshot)).stage_spec == stage
    store = SqliteStore(tmp_path / "ledger.db")
    store.register(catalogue.stages)
    store.close()
    again = SqliteStore(tmp_path / "ledger.db")
    assert dict(again.specs()) == {stage.digest(): stage}
    again.close()


def test_a_version_of_the_class_with_other_fields_is_named(tmp_path: Path) -> None:
    stage = with_halves()
    store = SqliteStore(tmp_path / "ledger.db")
    store.register({"cart": stage})
    store.close()
    later = msgspec.defstruct(
        "Later", [], bases=(Uniform,), frozen=True, tag="halves", tag_field="name", forbid_unknown_fields=True
    )
    registry._classes["halves"] = later
    with pytest.raises(LedgerError, match=r"does not fit the policy 'halves'.*install the version of its package"):
        SqliteStore(tmp_path / "ledger.db")
    registry._classes["halves"] = Halves
    SqliteStore(tmp_path / "ledger.db").close()  # the refusal left no lock


DIGESTS = json.loads((Path(__file__).parent / "shipped_digests.json").read_text(encoding="utf-8"))


EARLIER = {  # formats and titles that were others when the digests were recorded: (what stands after the nudge's name)
    "onboarding.nudges.style_quiz": ("inline_widget", "gamified"),
    "browsing.nudges.calculator": ("inline_widget", "gamified"),
    "onboarding.nudges.placement_test": ("inline_widget", "gamified"),
    "onboarding.nudges.walkthrough": ("walkthrough", "gamified"),
    "onboarding.nudges.quest_list": ("progress_streak", "gamified"),
    "retention.nudges.streak": ("progress_streak", "gamified"),
    "retention.nudges.round_up": ("toast", "gamified"),
    "retention.nudges.gift": ("scratch_card", "popup"),
    "browsing.nudges.flexible_dates": ("Are your dates flexible?", "Two days later is cheaper"),
    "checkout.nudges.testimonial": ("Read what learners wrote", "What a learner like you says"),
}


def without_content(text: str) -> str:
    """A shipped catalogue as it was before nudges had content."""
    text = re.sub(r"\n\n\[stages\.[^\]]+\.content\]\n.*?(?=\n\n|\n*\Z)", "", text, flags=re.DOTALL)
    for place, (now, earlier) in EARLIER.items():
        for value in ('format = "{}"', 'title = "{}"'):
            begin = re.escape(f"[stages.{place}]\n")
            line = re.escape(value.format(now))
            text = re.sub(rf"({begin}(?:.+\n)*?.*?){line}", rf"\g<1>{value.format(earlier)}", text)
    return text


@pytest.mark.parametrize("app", shipped())
def test_shipped_catalogues_keep_their_digests(app: str) -> None:
    """Recorded before policies could be installed, before `centred` was the default, before nudges had content and
    before contributions were limited: ledgers know declarations by them. Fashion's browsing is the exception: its
    earlier words claimed what nothing proves, so that they are refused now.
    """
    text = without_content(read_shipped(app))
    text = text.replace('{ name = "centred"', '{ name = "hierarchical"').replace("\nschema = 2\n", "\n")
    text = text.replace('\ncontribution = { most = 5, per = "7d" }\n', "\n")
    stages = parse(text).stages
    assert {name: [s.digest(), s.learning_digest()] for name, s in stages.items()} == DIGESTS[app]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_tutorial_shows_the_package_that_is_tested_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for language, file in (("toml", "pyproject.toml"), ("python", "softmax_policy.py"), ("toml", "shop.toml")):
        assert f"```{language}\n{(PACKAGE / file).read_text(encoding='utf-8')}```" in text, file
    assert f"```python\n{(PACKAGE / 'contract_of_softmax.py').read_text(encoding='utf-8')}```" in text


def test_the_function_of_the_tutorial_is_evaluated(played: Played) -> None:
    """In the folder of the ledger, as the page says."""
    (block,) = [
        b for b in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M) if "full_carts" in b
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(played.site), str(ROOT)])}
    folder = Path(played.store.removeprefix("sqlite:///")).parent
    done = subprocess.run(
        [sys.executable, "-c", block],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=env,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full carts 0."), done.stdout


def test_the_people_of_the_tutorial_make_a_log_that_can_judge_the_snapshot(tmp_path: Path) -> None:
    """The page from an empty ledger on: its script, its snapshot, its evaluation; and the refusal of a snapshot that
    learned from everything."""
    (block,) = [b for b in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M) if "BUYS" in b]
    site, port, ledger = lay_out(tmp_path / "site"), free_port("127.0.0.1"), tmp_path / "shop.db"
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
        options = ("--app", str(CATALOGUE), "--store", f"sqlite:///{ledger}", "--port", str(port), "--dev")
        log = tmp_path / "serve.log"
        with processes.stopping(server := processes.serve(*options, log=log)):
            processes.wait(server, f"http://127.0.0.1:{port}/health/ready", log)
            script = "import random\nrandom.seed(1)\n" + block.replace(":8080", f":{port}")
            subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE, cwd=tmp_path)
            last = httpx.get(f"http://127.0.0.1:{port}/v1/policies/cart/snapshot", timeout=PATIENCE).content
            (tmp_path / "last.zip").write_bytes(last)
    words = ("evaluate", "--ledger", ledger, "--stage", "cart", "--against", "none", "--against", "uniform", "--json")
    found = json.loads(run(*words, "--policy", tmp_path / "snapshot.zip", path=site).stdout)
    assert found["refused"] == []
    assert 1150 <= found["n"] <= 1199
    assert {"none", "uniform"} <= set(found["contrasts"])
    refused = json.loads(run(*words, "--policy", tmp_path / "last.zip", path=site, status=3).stdout)["refused"]
    assert refused[0]["detail"] == "this snapshot learned from all 1,500 decisions of the log"
    assert "--hold-back" in refused[0]["needed"]


def test_a_scenario_of_ones_own_is_simulated_and_its_mistakes_are_named(
    tmp_path: Path, played: Played, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(played.site)
    shipped_file = ROOT / "simulations" / "scenarios" / "travel.toml"
    mine = tmp_path / "mine.toml"
    mine.write_text(shipped_file.read_text("utf-8").replace("base = 0.14", "base = 0.3"), "utf-8")
    options = ("--users", 200, "--days", 3, "--seeds", 1, "--backend", "serial", "--out", tmp_path, "--json")
    words = ("simulate", "--app", "travel", "--policy", "softmax", "--policy", "fixed:none", *options)
    theirs, ours = (
        json.loads(inside(*words, *more).out)["stages"]["cart"]["fixed:none"] for more in ((), ("--scenario", mine))
    )
    assert theirs != ours
    mine.write_text(
        shipped_file.read_text("utf-8").replace("reminder = 0.05, ", "").replace("base =", "bas ="), "utf-8"
    )
    said = inside(*words, "--scenario", mine, status=1).err
    assert "bas: unknown key → did you mean `base`?" in said
    said = inside("simulate", "--app", "gaming", "--scenario", shipped_file, status=1).err
    assert said.endswith("travel.toml is about travel → give --app travel\n")


def test_the_messages_of_the_tutorial_are_real(played: Played) -> None:
    (shown,) = re.findall(r"^```text\n(error: the ledger.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    real = run("rebuild", "--store", played.store, "--verify", status=1).stderr
    assert shown == real


def test_the_python_of_the_tutorial_plays_in_the_simulator(played: Played, tmp_path: Path) -> None:
    """Its two files, saved under their names; its commands; its lines for a notebook."""
    python = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    (mine,), (world,) = ([b for b in python if word in b] for word in ("class Counting", "def shoppers"))
    (notebook,) = [b for b in python if "import compare" in b]
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    (tmp_path / "world.py").write_text(world, encoding="utf-8")
    shutil.copy(CATALOGUE, tmp_path / "shop.toml")
    commands = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
        for line in block.splitlines()
        if "python:" in line and ("peer:" not in line or importlib.util.find_spec("mabwiser"))
    ]
    assert any("world.py" in line for line in commands)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(played.site), str(ROOT)])}
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE, "env": env, "cwd": tmp_path}
    for line in commands:
        command = [sys.executable, "-m", "journey_bandit", *shlex.split(line)[1:], "--json"]
        done = subprocess.run(command, check=False, **settings)
        assert done.returncode == 0, done.stderr
        stages = json.loads(done.stdout)["stages"]["cart"]
        assert stages["fixed:none"]["vs_none"] == 0.0
        if "world.py" in line:
            assert stages["fixed:discount"]["vs_none"] > 1.0
        else:
            assert stages["python:mine.py:busy"]["nudged_pct"] > 40.0
    lines = 'from mine import Counting\nfrom world import shoppers\ntext = open("shop.toml").read()\n'
    done = subprocess.run([sys.executable, "-c", lines + notebook], check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["mine", "uniform", "fixed:none"]
