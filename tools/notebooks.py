"""Notebooks of the documentation, run without a kernel: `python -m tools.notebooks` runs those of docs/notebooks and
writes their outputs into them.

Cells run in order in one namespace, in a temporary folder. What a cell prints and the value of its last expression are
its outputs, as a notebook shows them: HTML, PNG or text.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its code cells give now. What a cell raises is raised."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    os.environ["COLUMNS"] = "100"  # what data frames fill, whatever the terminal has
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder, contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = _outputs("".join(cell["source"]), names, count)
                cells.append({**cell, "execution_count": count, "outputs": outputs})
            else:
                cells.append(cell)
    return {**notebook, "cells": cells}


def texts(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Outputs of the code cells, in order, without the bytes of pictures, which fonts may change."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            found.append({**output, "data": data} if "data" in output else output)
    return found


def dumped(notebook: dict[str, Any]) -> str:
    """The notebook as its file holds it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {count}>", "exec"), names)  # noqa: S102 - our own notebooks
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
    if value is not None:
        data = _data(value)
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs


def _data(value: Any) -> dict[str, Any]:
    """Forms of a value, as IPython asks for them: a picture alone, or text and HTML where it has some."""
    if hasattr(value, "_repr_png_"):
        return {"image/png": b64encode(value._repr_png_()).decode(), "text/plain": [f"<{type(value).__name__}>"]}
    data = {"text/plain": _lines(repr(value))}
    page = value._repr_html_() if hasattr(value, "_repr_html_") else None
    return data | ({"text/html": _lines(page)} if page else {})


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(folder: Path = FOLDER) -> int:
    """Run the notebooks of a folder and write them again, each with its outputs; always 0."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for path in sorted(folder.glob("*.ipynb")):
        made = run(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(dumped(made), encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(dumped(made)):,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
