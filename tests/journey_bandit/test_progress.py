"""Progress of long runs: drawn in terminals and notebooks, silent where output is piped."""

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from journey_bandit import progress
from journey_bandit.progress import progress as bar


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Notebook:
    """Displays of IPython, as a kernel has them: what each shows now, and all that any of them ever showed."""

    def __init__(self) -> None:
        self.shown, self.ever = list[str](), list[str]()

    def HTML(self, text: str) -> str:  # noqa: N802 - IPython's name
        return text

    def display(self, text: str, *, display_id: bool) -> Any:
        assert display_id
        place = len(self.shown)
        self.shown.append(text)
        self.ever.append(text)
        return SimpleNamespace(update=lambda new: self.put(place, new))

    def put(self, place: int, text: str) -> None:
        self.shown[place] = text
        self.ever.append(text)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    found = Notebook()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", found)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """clock(seconds): lets so much time pass."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_a_terminal_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with bar("travel: cells", 4) as advance:
        advance(3)
        advance(1)
    assert "travel: cells" in shown.getvalue()
    assert "4/4" in shown.getvalue()


def test_a_number_that_is_not_known_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with bar("[log]: decisions read") as advance:
        advance(100)
    assert "[log]: decisions read" in shown.getvalue(), "names are no markup"
    assert "100/?" in shown.getvalue()


def test_a_pipe_gets_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("travel: cells", 2) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_one_bar_and_takes_it_away(
    notebook: Notebook, clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("<b>: cells", 4) as advance:
        clock(1.1)
        advance(1)
        clock(0.3)
        advance(2)
        assert notebook.shown == ['&lt;b&gt;: cells <progress value="3" max="4"></progress> 3/4']
    assert notebook.shown == [""]
    assert capsys.readouterr() == ("", "")


def test_what_ends_within_a_second_leaves_no_output_in_a_notebook(
    notebook: Notebook, clock: Callable[[float], None]
) -> None:
    with bar("cells") as advance:
        clock(0.9)
        advance(1)
    assert notebook.ever == []


def test_a_bar_is_taken_away_when_the_run_fails(notebook: Notebook, clock: Callable[[float], None]) -> None:
    with pytest.raises(ValueError, match="no"), bar("decisions read") as advance:  # noqa: PT012
        clock(2.0)
        advance(5000)
        raise ValueError("no")
    assert notebook.ever == ["decisions read 5,000", ""]
