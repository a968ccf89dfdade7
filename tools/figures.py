"""Figures of the code: how far a stranger has to go in it.

    python -m tools.figures                 this checkout
    python -m tools.figures 5a32ef2         a commit beside it (hops and shapes are traced in this checkout only)

Names: classes that share a name. Folders: files in a folder, but for those that hold one for each kind.
Functions: lines of the longest, those that only declare routes apart. Docstrings: median words of public modules,
classes, functions and methods; how many have none. Silent: public functions that take or return arrays, or take a
time, and whose docstring (or their class's or module's) names no shape or unit. Hops: files on a decision's way
from the body to the reply that hand it on or give it its next shape; shapes: the types that carry it.
"""

import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = ("bandit", "api", "experiments", "simulations", "journey_bandit")
ONE_PER_KIND = {"bandit/policies", "api/routes"}
INHERITED = ("api/stores/memory", "api/stores/sqlite")  # their protocols say what their methods do
SHAPES = ("DecisionRequest", "DecisionQuery", "Decision", "PendingDecision", "RecordedDecision", "DecisionReply")
SHAPE = re.compile(r"\([a-zA-Z0-9·]+(, [\w.+ ·²…]+)*,?\)|…, |µs|second|hour|day|1970|shape", re.IGNORECASE)


class Figures(NamedTuple):
    """Figures of one tree; see the module."""

    modules: int
    shared: list[str]
    crowded: dict[str, int]
    longest: list[tuple[int, str]]
    routes: list[tuple[int, str]]
    words: dict[str, float]
    missing: int
    silent: list[str]


def figures(root: Path) -> Figures:
    """Figures of the packages under a folder."""
    trees = {
        path.relative_to(root): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    classes = Counter(n.name for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    folders = Counter(str(path.parent) for path in trees if path.name != "__init__.py")
    lengths = [
        (kind, (n.end_lineno or n.lineno) - n.lineno + 1, f"{path}:{n.name}")
        for path, tree in trees.items()
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        for kind in ("routes" if _holds_routes(n) else "functions",)
    ]
    docs = [(path.parts[0], node, above, f"{path}") for path, tree in trees.items() for node, above in _public(tree)]
    words: dict[str, list[int]] = {}
    for package, node, *_ in docs:
        if (text := ast.get_docstring(node)) is not None:
            words.setdefault(package, []).append(len(text.split()))
    return Figures(
        modules=len(trees),
        shared=sorted(name for name, count in classes.items() if count > 1),
        crowded={name: n for name, n in folders.items() if n > 12 and name not in ONE_PER_KIND},
        longest=sorted(((n, name) for kind, n, name in lengths if kind == "functions"), reverse=True)[:5],
        routes=sorted(((n, name) for kind, n, name in lengths if kind == "routes"), reverse=True)[:5],
        words={package: statistics.median(counts) for package, counts in words.items()},
        missing=sum(not ast.get_docstring(node) for _, node, _, file in docs if not file.startswith(INHERITED)),
        silent=[f"{file}:{node.name}" for _, node, above, file in docs if _is_silent(node, above)],
    )


def _holds_routes(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function only declares the handlers of routes, each with its text for the OpenAPI page."""
    return any(isinstance(inner, ast.AsyncFunctionDef) and inner.decorator_list for inner in node.body)


def _public(tree: ast.Module) -> Iterator[tuple[Any, str]]:
    """Public definitions, each with the docstrings above it."""
    above = ast.get_docstring(tree) or ""
    yield tree, ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node, above
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith(
                    ("_", "test_")
                ):
                    yield inner, above + (ast.get_docstring(node) or "")


def _is_silent(node: Any, above: str) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    arguments = [*node.args.args, *node.args.kwonlyargs]
    types = [ast.unparse(a.annotation) for a in arguments if a.annotation]
    types += [ast.unparse(node.returns)] if node.returns else []
    arrays = any(re.search(r"\b(Array|Mask|Ints|NDArray)\b", text) for text in types)
    named = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation}
    times = any(named.get(name) == "int" for name in ("now", "at", "expires"))
    return (arrays or times) and not SHAPE.search((ast.get_docstring(node) or "") + above)


def trace() -> tuple[list[str], list[str]]:
    """Hops and shapes of one decision over HTTP, in process: the files that it enters, in order, and its types."""
    from litestar.testing import TestClient

    from api.app import create_app
    from api.settings import Settings

    entered, hops, shapes, watching = list[str](), set[str](), list[str](), False

    def ours(frame: FrameType | None) -> str:
        file = Path(frame.f_code.co_filename) if frame else ROOT
        inside = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[:1] in (("bandit",), ("api",))
        return str(file.relative_to(ROOT)) if inside else ""

    def carried(values: Iterable[object]) -> list[str]:
        lists = [value[0] for value in values if isinstance(value, list | tuple) and value]
        return [name for name in (type(value).__name__ for value in (*values, *lists)) if name in SHAPES]

    def look(frame: FrameType, event: str, given: object) -> None:
        if not watching or event not in ("call", "return") or not (here := ours(frame)):
            return
        code = frame.f_code
        arguments = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        got, back = carried(arguments), carried([given])
        shapes.extend(name for name in (got if event == "call" else back) if name not in shapes)
        entered.extend([here] if (got or back) and here not in entered else [])
        caller = ours(frame.f_back)
        if event == "call" and got and caller != here:
            hops.update([caller] if caller else [])
        if event == "return" and set(back) - set(got):
            hops.add(here)

    threading.setprofile(look)
    try:
        with TestClient(create_app(Settings(app="travel", store="memory://", dev=True, salt="figures"))) as client:
            body = {"stage": "onboarding", "user_id": "u"}
            client.post("/v1/decisions", json=body).raise_for_status()
            watching = True
            client.post("/v1/decisions", json={**body, "user_id": "v"}).raise_for_status()
            watching = False
    finally:
        threading.setprofile(None)
    return [file for file in entered if file in hops], shapes


def show(title: str, found: Figures) -> None:
    """Print the figures of a tree."""
    print(f"{title}: {found.modules} modules")
    print(f"  names that stand for more than one class  {len(found.shared)}  {' '.join(found.shared[:12])}")
    print(f"  folders with more than 12 files           {len(found.crowded)}  {found.crowded or ''}")
    print(f"  longest functions, in lines               {found.longest[0][0]}  {found.longest[:3]}")
    print(f"  longest declarations of routes, in lines  {found.routes[0][0]}  {found.routes[:3]}")
    print(f"  median words of a public docstring        {found.words}  without one: {found.missing}")
    print(f"  arrays or times without shape or unit     {len(found.silent)}  {found.silent[:8]}")


def main() -> None:
    """Print the figures of this checkout, and of the commit that is named, if any."""
    for commit in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True, cwd=ROOT).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                packed.extractall(temporary, filter="data")
            show(commit, figures(Path(temporary)))
    show("this checkout", figures(ROOT))
    hops, shapes = trace()
    print(f"  hops of a decision                        {len(hops)}  {' '.join(hops)}")
    print(f"  shapes of a decision                      {len(shapes)}  {' '.join(shapes)}")


if __name__ == "__main__":
    main()
