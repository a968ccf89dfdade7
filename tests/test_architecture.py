"""Who may import whom: packages, the sub-packages within them, and what each may use of others' libraries."""

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bandit", "api", "experiments", "simulations", "journey_bandit")
CLIENT = "journey_bandit_client"  # a distribution of its own: neither imports the other
EVERYTHING = (*PACKAGES, CLIENT)
HOMES = {CLIENT: ROOT / "clients" / "python"}  # of packages that do not stand at the root

MAY = {  # besides itself and the standard library
    "bandit": {"numpy", "scipy", "msgspec", "numba"},
    "api": {"bandit", "litestar", "granian", "msgspec", "sqlite_utils", "uuid_utils"}
    | {"prometheus_client", "numpy", "threadpoolctl", "jwt", "psycopg", "jinja2", "opentelemetry", "uvloop"},
    CLIENT: {"httpx", "msgspec"},
}
MUST_NOT = {
    # no clock, no generator, no outside world
    "bandit": {"time", "datetime", "random", "secrets", "os", "pathlib", "socket", "threading", "asyncio", "logging"},
    "experiments": {"api", "simulations", "journey_bandit", CLIENT},
    "simulations": {"api", "experiments", "journey_bandit", CLIENT},
    "journey_bandit": {CLIENT},
}
ONLY = {  # library → the one module or sub-package that may import it
    "numba": "bandit.policies.compilation",
    "mlflow": "experiments.mlflow",
    "joblib": "simulations.offline.parallel",
    "threadpoolctl": "simulations.offline.parallel",
    "distributed": "simulations.offline.parallel",
    "dask": "simulations.offline.parallel",
    "mcp": "journey_bandit.assistants",
    "pydantic": "journey_bandit.assistants",
}
WITHIN = {  # the only module of that package
    ("simulations", "pyarrow"): "simulations.offline.parquet_log",
    ("api", "threadpoolctl"): "api.server",
    ("api", "uvloop"): "api.server",
    ("api", "jwt"): "api.http.browser_access",
    ("api", "jinja2"): "api.console.rendering",
    ("api", "opentelemetry"): "api.telemetry.tracing",
}

ARROWS: dict[str, set[str]] = {  # sub-package → sub-packages of the same package that it may import
    "bandit.numerics": set(),
    "bandit.propensity": {"bandit.numerics"},
    "bandit.policies": {"bandit.numerics", "bandit.propensity"},
    "bandit.catalogue": {"bandit.policies"},
    "bandit.journey": {"bandit.catalogue"},
    "bandit.tables": {"bandit.catalogue"},
    "bandit.operations": {"bandit.catalogue"},
    "bandit.reporters": {"bandit.numerics"},
    "bandit.alarms": {"bandit.numerics"},
    "bandit.learning": {"bandit.catalogue", "bandit.policies", "bandit.numerics", "bandit.reporters"},
    "api.stores": set(),
    "api.messages": set(),
    "api.telemetry": set(),
    "api.traffic": set(),
    "api.http": {"api.messages", "api.traffic", "api.telemetry"},
    "api.releases": {"api.stores", "api.operations"},
    "api.ledger": {"api.stores", "api.releases"},
    "api.operations": {"api.stores", "api.messages"},
    "api.learning": {"api.stores", "api.ledger", "api.releases", "api.operations"},
    "api.webhooks": {"api.stores", "api.ledger", "api.learning"},
    "api.decisions": {"api.stores", "api.messages", "api.learning", "api.operations"},
    "api.events": {"api.stores", "api.messages", "api.learning", "api.decisions"},
    "api.exports": {"api.traffic"},
    "api.people": {"api.stores", "api.messages", "api.learning", "api.ledger", "api.decisions"},
    "api.console": {
        "api.stores",
        "api.messages",
        "api.http",
        "api.ledger",
        "api.learning",
        "api.decisions",
        "api.people",
        "api.operations",
    },
    "api.routes": {"api.stores", "api.messages", "api.http", "api.traffic", "api.learning"}
    | {"api.decisions", "api.events", "api.releases", "api.webhooks", "api.people", "api.operations", "api.console"}
    | {"api.ledger", "api.exports"},
    "experiments.data": set(),
    "experiments.inference": {"experiments.data"},
    "experiments.ab_tests": {"experiments.data", "experiments.inference"},
    "experiments.ope": {"experiments.data", "experiments.inference"},
    "experiments.promotion": {"experiments.data", "experiments.inference", "experiments.ope"},
    "experiments.reports": {"experiments.data", "experiments.inference", "experiments.ope", "experiments.promotion"},
    "experiments.mlflow": {"experiments.reports", "experiments.inference"},
    "simulations.authoring": set(),
    "simulations.contenders": set(),
    "simulations.datasets": set(),
    "simulations.offline": {"simulations.datasets", "simulations.contenders"},
    "simulations.live": {"simulations.datasets"},
    "simulations.validation": {"simulations.offline"},
    "simulations.scenarios": set(),
    "simulations.twin": {"simulations.offline"},
    "journey_bandit.workflows": set(),
    "journey_bandit.service": set(),
    "journey_bandit.operations": {"journey_bandit.service"},
    "journey_bandit.evaluation": {"journey_bandit.workflows"},
    "journey_bandit.exports": {"journey_bandit.workflows"},
    "journey_bandit.registry": {"journey_bandit.workflows", "journey_bandit.service"},
    "journey_bandit.simulation": {"journey_bandit.workflows"},
    "journey_bandit.assistants": {"journey_bandit.workflows", "journey_bandit.service", "journey_bandit.registry"},
    "journey_bandit.analysis": {"journey_bandit.workflows", "journey_bandit.evaluation", "journey_bandit.simulation"},
    "journey_bandit.demos": set(),
    "journey_bandit.testing": set(),
}

MOST_FILES = 12
MOST_LINES = 60
ONE_PER_KIND = {"bandit/policies", "api/routes"}  # a file for each policy, a file for each protocol

Sources = dict[str, str]  # module → text


def files_of(package: str) -> dict[Path, Path]:
    """Files of a package by their path from where it stands."""
    home = HOMES.get(package, ROOT)
    return {path.relative_to(home): path for path in sorted((home / package).rglob("*.py"))}


def read(packages: tuple[str, ...] = EVERYTHING) -> Sources:
    paths = [item for package in packages for item in files_of(package).items()]
    files = {name: path.read_text(encoding="utf-8") for name, path in paths}
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): text for path, text in files.items()}


@functools.cache
def parsed(text: str) -> ast.Module:
    """Tree of a module's text; nobody changes it."""
    return ast.parse(text)


def imports(text: str, modules: Mapping[str, str]) -> Iterator[str]:
    """What a module imports, also inside functions; a relative import keeps its dots."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            submodules = {f"{module}.{alias.name}" for alias in node.names} & modules.keys()
            yield from submodules
            if len(submodules) < len(node.names):
                yield module


def room(module: str) -> str:
    """The sub-package of a module, or "" for a module of the package itself."""
    parts = module.split(".")
    return f"{parts[0]}.{parts[1]}" if f"{parts[0]}.{'.'.join(parts[1:2])}" in ARROWS else ""


def wrong(module: str, name: str) -> str | None:
    """Why `module` must not import `name`, if so."""
    package, top = module.partition(".")[0], name.partition(".")[0]
    if name.startswith("."):
        return "a relative import"
    if top in MUST_NOT.get(package, ()) or (top == "journey_bandit" and package != "journey_bandit"):
        return f"{package} must not"
    if top in MAY.get(package, {top}) | {package} | sys.stdlib_module_names:
        only = WITHIN.get((package, top)) or ONLY.get(top, module)
        if not f"{module}.".startswith(f"{only}."):
            return f"only {only} may"
        here, there = room(module), room(name)
        if top == package and here and there and here != there and there not in ARROWS[here]:
            return f"no arrow leads from {here} to {there}"
        return None
    return f"not in the table of {package}"


def violations(modules: Sources) -> list[str]:
    graph = {module: set(imports(text, modules)) for module, text in modules.items()}
    found = [f"{m} imports {n}: {why}" for m, names in graph.items() for n in sorted(names) if (why := wrong(m, n))]
    found += [f"{m} opens without a docstring" for m, text in modules.items() if not ast.get_docstring(parsed(text))]
    rooms = {".".join(module.split(".")[:2]) for module in modules if module.count(".") >= 2}
    found += [f"{name} is not in the table of arrows" for name in sorted(rooms - ARROWS.keys())]
    try:
        TopologicalSorter({m: names & modules.keys() for m, names in graph.items()}).prepare()
    except CycleError as error:
        found.append("a cycle: " + " → ".join(reversed(error.args[1])))
    return found


def shared_names(modules: Mapping[str, str]) -> list[str]:
    """Names of classes that stand for more than one class."""
    names = [
        node.name for text in modules.values() for node in ast.walk(parsed(text)) if isinstance(node, ast.ClassDef)
    ]
    return sorted(name for name, count in Counter(names).items() if count > 1)


def crowded(folders: Mapping[str, int]) -> list[str]:
    """Folders with more than 12 files, but for those that hold one for each kind."""
    return sorted(name for name, count in folders.items() if count > MOST_FILES and name not in ONE_PER_KIND)


def long_functions(modules: Mapping[str, str]) -> list[str]:
    """Functions of more than 60 lines, those that declare routes included."""
    return sorted(
        f"{module}:{node.name}"
        for module, text in modules.items()
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MOST_LINES
    )


def test_every_module_keeps_to_the_table() -> None:
    assert len(read()) > 150
    assert violations(read()) == []


def test_the_table_of_arrows_has_no_cycle_and_no_room_that_is_gone() -> None:
    TopologicalSorter(ARROWS).prepare()
    assert [name for name in ARROWS if not (ROOT / name.replace(".", "/")).is_dir()] == []


def test_no_class_name_stands_twice() -> None:
    sources = read((*EVERYTHING, "benchmarks"))
    assert shared_names(sources) == []
    sources["bandit.records"] += "\n\nclass Snapshot:\n    pass\n"
    assert shared_names(sources) == ["Snapshot"]


def test_no_folder_is_crowded() -> None:
    files = [path for package in (*EVERYTHING, "benchmarks") for path in files_of(package)]
    folders = Counter(str(path.parent) for path in files if path.name != "__init__.py")
    assert crowded(folders) == []
    assert crowded({"bandit/policies": 40, "bandit": MOST_FILES + 1, "api": MOST_FILES}) == ["bandit"]


def test_no_function_is_long() -> None:
    sources = read()
    assert long_functions(sources) == []
    sources["bandit.errors"] += "\n\ndef just():\n" + "    pass\n" * (MOST_LINES - 1)
    sources["bandit.records"] += "\n\nasync def long():\n" + "    pass\n" * MOST_LINES
    assert long_functions(sources) == ["bandit.records:long"]


def test_a_cycle_is_found() -> None:
    sources = read()
    sources["bandit.errors"] += "\ndef late():\n    from bandit import engine\n"
    (found,) = violations(sources)
    assert found.startswith("a cycle: ")
    assert "bandit.errors → bandit.engine" in found


@pytest.mark.parametrize(
    ("module", "line", "why"),
    [
        ("bandit.belief", "import litestar", "not in the table of bandit"),
        ("bandit.belief", "from api import app", "not in the table of bandit"),
        ("bandit.belief", "import time", "bandit must not"),
        ("bandit.belief", "from . import errors", "a relative import"),
        ("api.decisions.service", "import mlflow", "not in the table of api"),
        ("api.decisions.service", "def f():\n    import experiments", "not in the table of api"),
        ("api.decisions.service", "import journey_bandit.main", "api must not"),
        ("experiments.reports.report", "import simulations", "experiments must not"),
        ("experiments.reports.report", "import mlflow.x", "only experiments.mlflow may"),
        ("simulations.live.visitors", "from api import app", "simulations must not"),
        ("simulations.live.visitors", "import mlflow", "only experiments.mlflow may"),
        ("simulations.live.visitors", "import joblib", "only simulations.offline.parallel may"),
        ("simulations.live.visitors", "import pyarrow", "only simulations.offline.parquet_log may"),
        ("journey_bandit.main", "import mlflow", "only experiments.mlflow may"),
        ("journey_bandit.main", "import journey_bandit_client", "journey_bandit must not"),
        ("simulations.live.client", "import journey_bandit_client.errors", "simulations must not"),
        ("api.app", "import journey_bandit_client", "not in the table of api"),
        (
            "journey_bandit_client.calls",
            "from bandit.records import Decision",
            "not in the table of journey_bandit_client",
        ),
        ("journey_bandit_client.calls", "import journey_bandit", "journey_bandit_client must not"),
        ("journey_bandit_client.calls", "import pydantic", "not in the table of journey_bandit_client"),
        (
            "bandit.propensity.gaussian",
            "from bandit.policies import beta",
            "no arrow leads from bandit.propensity to bandit.policies",
        ),
        (
            "api.stores.protocol",
            "from api.decisions import maker",
            "no arrow leads from api.stores to api.decisions",
        ),
        (
            "api.http.keys",
            "def f():\n    from api.learning.worker import Worker",
            "no arrow leads from api.http to api.learning",
        ),
        (
            "experiments.data.rounds",
            "import experiments.ope.estimators",
            "no arrow leads from experiments.data to experiments.ope",
        ),
        (
            "simulations.offline.runner",
            "from simulations.validation import calibration",
            "no arrow leads from simulations.offline to simulations.validation",
        ),
        (
            "journey_bandit.service.keys",
            "from journey_bandit.registry import promote",
            "no arrow leads from journey_bandit.service to journey_bandit.registry",
        ),
    ],
)
def test_a_stray_import_is_found(module: str, line: str, why: str) -> None:
    sources = read()
    sources[module] += f"\n{line}\n"
    assert any(re.match(rf"{module} imports \S+: {re.escape(why)}$", found) for found in violations(sources))


def test_a_room_without_arrows_is_found() -> None:
    sources = read() | {"api.cellar.wine": '"""Wine."""'}
    assert violations(sources) == ["api.cellar is not in the table of arrows"]


def test_a_module_without_a_docstring_is_found() -> None:
    sources = read()
    sources["bandit.errors"] = "from __future__ import annotations\n" + sources["bandit.errors"]
    assert violations(sources) == ["bandit.errors opens without a docstring"]
