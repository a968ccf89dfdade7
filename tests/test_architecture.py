"""Who may import whom: the core knows nothing of the edges, the edges nothing of each other, nothing is circular."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bandit", "api", "experiments", "simulations", "cli")

MAY = {  # besides itself and the standard library
    "bandit": {"numpy", "scipy", "msgspec"},
    "api": {"bandit", "litestar", "litestar_offline_docs", "granian", "msgspec", "sqlite_utils", "uuid_utils"}
    | {"prometheus_client", "numpy"},
}
MUST_NOT = {
    # no clock, no generator, no outside world
    "bandit": {"time", "datetime", "random", "secrets", "os", "pathlib", "socket", "threading", "asyncio", "logging"},
    "experiments": {"api", "simulations", "cli"},
    "simulations": {"api", "experiments", "cli"},
}
ONLY = {
    "joblib": "simulations.parallel",
    "threadpoolctl": "simulations.parallel",
    "distributed": "simulations.parallel",
    "dask": "simulations.parallel",
}
MLFLOW = {
    "experiments.audit_table",
    "experiments.tracking",
    "experiments.registry",
    "experiments.as_model",
}  # the last is what MLflow itself loads
WITHIN = {("simulations", "pyarrow"): "simulations.columns"}  # the only module of that package

Sources = dict[str, str]  # module → text


def read() -> Sources:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    files = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in paths}
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): text for path, text in files.items()}


def imports(text: str, modules: Sources) -> Iterator[str]:
    """What a module imports, also inside functions; a relative import keeps its dots."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            submodules = {f"{module}.{alias.name}" for alias in node.names} & modules.keys()
            yield from submodules
            if len(submodules) < len(node.names):
                yield module


def wrong(module: str, name: str) -> str | None:
    """Why `module` must not import `name`, if so."""
    package, top = module.partition(".")[0], name.partition(".")[0]
    if name.startswith("."):
        return "a relative import"
    if top in MUST_NOT.get(package, ()) or (top == "cli" and package != "cli"):
        return f"{package} must not"
    if top in MAY.get(package, {top}) | {package} | sys.stdlib_module_names:
        if top == "mlflow" and module not in MLFLOW:
            return f"only {', '.join(sorted(MLFLOW))} may"
        only = WITHIN.get((package, top)) or ONLY.get(top, module)
        return None if only == module else f"only {only} may"
    return f"not in the table of {package}"


def violations(modules: Sources) -> list[str]:
    graph = {module: set(imports(text, modules)) for module, text in modules.items()}
    found = [f"{m} imports {n}: {why}" for m, names in graph.items() for n in sorted(names) if (why := wrong(m, n))]
    found += [f"{m} opens without a docstring" for m, text in modules.items() if not ast.get_docstring(ast.parse(text))]
    try:
        TopologicalSorter({m: names & modules.keys() for m, names in graph.items()}).prepare()
    except CycleError as error:
        found.append("a cycle: " + " → ".join(reversed(error.args[1])))
    return found


def test_every_module_keeps_to_the_table() -> None:
    assert len(read()) > 30
    assert violations(read()) == []


def test_a_cycle_is_found() -> None:
    sources = read()
    sources["bandit.errors"] += "\ndef late():\n    from bandit import engine\n"
    (found,) = violations(sources)
    assert found.startswith("a cycle: ")
    assert "bandit.errors → bandit.engine" in found


ONE_OF = "only experiments.as_model, experiments.audit_table, experiments.registry, experiments.tracking may"


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("bandit.belief", "import litestar", "bandit.belief imports litestar: not in the table of bandit"),
        ("bandit.belief", "from api import app", "bandit.belief imports api.app: not in the table of bandit"),
        ("bandit.belief", "import time", "bandit.belief imports time: bandit must not"),
        ("bandit.belief", "from . import errors", "bandit.belief imports .: a relative import"),
        ("api.service", "import mlflow", "api.service imports mlflow: not in the table of api"),
        ("api.service", "def f():\n    import experiments", "api.service imports experiments: not in the table of api"),
        ("api.service", "import cli.main", "api.service imports cli.main: api must not"),
        ("experiments.report", "import simulations", "experiments.report imports simulations: experiments must not"),
        ("experiments.report", "import mlflow.x", "experiments.report imports mlflow.x: " + ONE_OF),
        ("simulations.users", "from api import app", "simulations.users imports api.app: simulations must not"),
        ("simulations.users", "import mlflow", "simulations.users imports mlflow: " + ONE_OF),
        ("simulations.users", "import joblib", "simulations.users imports joblib: only simulations.parallel may"),
        ("simulations.users", "import pyarrow", "simulations.users imports pyarrow: only simulations.columns may"),
        ("cli.main", "import mlflow", "cli.main imports mlflow: " + ONE_OF),
    ],
)
def test_a_stray_import_is_found(module: str, line: str, found: str) -> None:
    sources = read()
    sources[module] += f"\n{line}\n"
    assert found in violations(sources)


def test_a_module_without_a_docstring_is_found() -> None:
    sources = read()
    sources["bandit.errors"] = "from __future__ import annotations\n" + sources["bandit.errors"]
    assert violations(sources) == ["bandit.errors opens without a docstring"]
