"""Figures of the code: how far a stranger has to go in it.

    python -m tools.figures                 this checkout
    python -m tools.figures 5a32ef2         a commit beside it (hops and shapes are traced in this checkout only)

Names: classes that share a name. Folders: files in a folder, but for those that hold one for each kind. Functions: lines
of the longest. Docstrings: median words of public modules, classes, functions and methods, and how many have none.
Silent: public functions that take or return arrays, or take a time, and whose docstring (or their class's or module's)
names no shape or unit. Hops: files that a decision passes from the body of a request to the reply, counted each time
another file is entered; shapes: the types that carry it.
"""

import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = ("bandit", "api", "experiments", "simulations", "cli", "journey_bandit")
ONE_PER_KIND = {"bandit/policies", "api/routes"}
SHAPE = re.compile(r"\([a-zA-Z0-9]+(, [\w.+ ·²…]+)*,?\)|…, |µs|second|hour|day|1970|shape", re.IGNORECASE)


class Figures(NamedTuple):
    """Figures of one tree; see the module."""

    modules: int
    shared: list[str]
    crowded: dict[str, int]
    longest: list[tuple[int, str]]
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
        ((n.end_lineno or n.lineno) - n.lineno + 1, f"{path}:{n.name}")
        for path, tree in trees.items()
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and not _holds_routes(n)
    ]
    docs = [(path.parts[0], node, above, f"{path}") for path, tree in trees.items() for node, above in _public(tree)]
    words: dict[str, list[int]] = {}
    for package, node, *_ in docs:
        words.setdefault(package, []).append(len((ast.get_docstring(node) or "").split()))
    return Figures(
        modules=len(trees),
        shared=sorted(name for name, count in classes.items() if count > 1),
        crowded={name: n for name, n in folders.items() if n > 12 and name not in ONE_PER_KIND},
        longest=sorted(lengths, reverse=True)[:5],
        words={package: statistics.median(counts) for package, counts in words.items()},
        missing=sum(count == 0 for counts in words.values() for count in counts),
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
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield inner, above + (ast.get_docstring(node) or "")


def _is_silent(node: Any, above: str) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    arguments = [*node.args.args, *node.args.kwonlyargs]
    types = [ast.unparse(a.annotation) for a in arguments if a.annotation]
    types += [ast.unparse(node.returns)] if node.returns else []
    arrays = any(re.search(r"\b(Array|Mask|Ints|NDArray)\b", text) for text in types)
    times = any(a.arg in ("now", "at", "expires") for a in arguments)
    return (arrays or times) and not SHAPE.search((ast.get_docstring(node) or "") + above)


def trace() -> tuple[list[str], list[str]]:
    """Hops and shapes of one decision over HTTP, in process: files entered in order, and the types that carry it."""
    from litestar.testing import TestClient

    from api.app import create_app
    from api.settings import Settings

    ours = {str(ROOT / name) for name in ("bandit", "api")}
    hops, shapes, last, watching = list[str](), list[str](), "", False
    carriers = {"DecisionRequest", "DecisionQuery", "Decision", "PendingDecision", "RecordedDecision", "DecisionReply"}
    carriers |= {"PreparedPolicy", "Scores"}

    def look(frame: Any, event: str, given: Any) -> None:
        nonlocal last
        file = frame.f_code.co_filename
        if event == "call" and watching and any(file.startswith(folder) for folder in ours):
            name = type(frame.f_locals.get("request")).__name__
            for value in frame.f_locals.values():
                name = type(value).__name__
                if name in carriers and name not in shapes:
                    shapes.append(name)
            if file != last and file not in hops and any(
                type(v).__name__ in carriers - {"PreparedPolicy", "Scores"} for v in frame.f_locals.values()
            ):
                hops.append(file)
            last = file
        if event == "return" and watching and type(given).__name__ in carriers:
            if type(given).__name__ not in shapes:
                shapes.append(type(given).__name__)

    import threading

    with TestClient(create_app(Settings(app="travel", store="memory://", dev=True, salt="figures"))) as client:
        stage = next(iter(client.get("/v1/stages").json()["stages"]))
        body = {"stage": stage["stage"], "user_id": "u", "context": {}}
        client.post("/v1/decisions", json=body).raise_for_status()
        threading.setprofile_all_threads(look) if hasattr(threading, "setprofile_all_threads") else None
        watching = True
        client.post("/v1/decisions", json={**body, "user_id": "v"}).raise_for_status()
        watching = False
    return [str(Path(file).relative_to(ROOT)) for file in hops], [s for s in shapes if s not in ("PreparedPolicy", "Scores")]


def show(title: str, found: Figures) -> None:
    """Print the figures of a tree."""
    print(f"{title}: {found.modules} modules")
    print(f"  names that stand for more than one class  {len(found.shared)}  {' '.join(found.shared[:12])}")
    print(f"  folders with more than 12 files           {len(found.crowded)}  {found.crowded or ''}")
    print(f"  longest functions, in lines               {found.longest[0][0]}  {[name for _, name in found.longest[:3]]}")
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


if __name__ == "__main__":
    main()
