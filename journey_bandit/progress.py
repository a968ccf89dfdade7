"""Progress of a long run: a bar on standard error where that is a terminal, a bar below the cell in a notebook, nothing
where output is piped.
"""

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_QUIET = 1.0  # seconds before a notebook shows a bar: what ends earlier leaves no output
_PAUSE = 0.2  # seconds between two pictures of it

Advance = Callable[[int], None]
"""Called with the number of further steps done."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Progress bar of a run, as a context manager: call what it gives with the number of further steps done. `total`:
    how many steps there are, None where that is not known; then their number is shown.

    In a terminal the bar is drawn on standard error; in a notebook below the cell, after a second, and taken away at
    the end. Where standard error is piped, nothing is written.
    """
    display = _notebook_display()
    if display is not None:
        bar = _NotebookBar(display, what, total)
        try:
            yield bar.advance
        finally:
            bar.close()
    elif sys.stderr.isatty():
        left = TimeElapsedColumn() if total is None else TimeRemainingColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), left)
        with Progress(*columns, console=Console(stderr=True, highlight=False)) as shown:
            task = shown.add_task(what, total=total)
            yield lambda step: shown.update(task, advance=step)
    else:
        yield lambda _: None


def _notebook_display() -> Any | None:
    """IPython's module of displays, where this runs in a kernel of Jupyter; else None. IPython is not imported."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return None if getattr(shell, "kernel", None) is None else sys.modules.get("IPython.display")


class _NotebookBar:
    """Bar below a notebook's cell: one display that is drawn again, and is empty at the end."""

    def __init__(self, display: Any, what: str, total: int | None):
        self._display, self._what, self._total = display, what, total
        self._done, self._drawn = 0, time.monotonic() + _QUIET - _PAUSE
        self._handle: Any = None

    def advance(self, step: int) -> None:
        self._done += step
        if time.monotonic() - self._drawn < _PAUSE:
            return
        self._drawn, shown = time.monotonic(), self._display.HTML(self._html())
        if self._handle is None:
            self._handle = self._display.display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.update(self._display.HTML(""))

    def _html(self) -> str:
        what = html.escape(self._what)
        if self._total is None:
            return f"{what} {self._done:,}"
        return f'{what} <progress value="{self._done}" max="{self._total}"></progress> {self._done:,}/{self._total:,}'
