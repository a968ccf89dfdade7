"""Notebooks of the site: their cells run, and the outputs that were saved are what they give."""

import base64
import importlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tools import notebooks

ROOT = Path(__file__).parents[1]
FILES = sorted(notebooks.FOLDER.glob("*.ipynb"))


def sizes(notebook: dict[str, Any]) -> list[tuple[int, int]]:
    """Width and height of each picture."""
    pictures = [
        output["data"]["image/png"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    return [struct.unpack(">II", base64.b64decode(picture)[16:24]) for picture in pictures]


def test_there_are_three() -> None:
    assert len(FILES) == 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_was_saved_is_what_running_gives(file: Path) -> None:
    saved = json.loads(file.read_text(encoding="utf-8"))
    made = notebooks.run(saved)
    assert notebooks.texts(made) == notebooks.texts(saved)
    assert sizes(made) == sizes(saved)
    assert len(sizes(saved)) == 1
    assert len(notebooks.dumped(saved)) < 150_000
    assert file.read_text(encoding="utf-8") == notebooks.dumped(saved)


def cells(*sources: str) -> dict[str, Any]:
    return {"cells": [{"cell_type": "code", "source": [source], "outputs": []} for source in sources]}


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    made = notebooks.run(cells("x = 2\nprint(x)\nx + 1", "y = x", "x"))
    first, second, third = (cell["outputs"] for cell in made["cells"])
    assert [output.get("text") or output["data"]["text/plain"] for output in first] == [["2\n"], ["3"]]
    assert (second, third[0]["data"]) == ([], {"text/plain": ["2"]})
    with pytest.raises(ZeroDivisionError):
        notebooks.run(cells("1 / 0"))


def test_the_site_shows_code_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("myst_parser")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    pages = importlib.import_module("notebook_pages")
    text = pages.markdown(json.loads(FILES[-1].read_text(encoding="utf-8")))
    assert text.startswith("# ")
    assert "```python\nfrom journey_bandit import analysis\n" in text
    assert text.count("data:image/png;base64,") == 1
    assert '<div class="output"><div><table>' in text
