"""`serve` and compiled code: where it is kept, and what is said where there is no compiler."""

import importlib.util
import logging
from pathlib import Path

import pytest

from bandit.errors import InvalidRequest
from bandit.policies import compilation
from bandit.policies.compilation import Compilation
from journey_bandit.service import serve


def test_it_is_kept_where_the_variable_says_else_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert serve._kept_in() == str(tmp_path / "named")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert serve._kept_in() == str(tmp_path / "journey-bandit" / "compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert serve._kept_in() == str(tmp_path / ".cache" / "journey-bandit" / "compiled")


def test_nothing_is_kept_by_a_user_without_a_home_or_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert serve._kept_in() == ""
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert serve._kept_in() == ""


def test_without_a_compiler_only_who_asked_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    serve._compile(needed=False)
    with pytest.raises(InvalidRequest, match="numba is not installed") as refused:
        serve._compile(needed=True)
    assert "journey-bandit[fast]" in str(refused.value)


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        (Compilation("numba 9", ""), "decisions are computed by code that numba 9 compiled"),
        (Compilation("numba 9", "it fails: E"), "decisions are computed without numba 9: it fails: E"),
        (Compilation("numba 9", "", "EOFError: x"), "nor kept: EOFError: x; remove that folder"),
    ],
)
def test_what_became_of_it_is_in_the_log(
    tried: Compilation,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(compilation, "start", lambda folder: tried if folder == str(tmp_path) else None)
    with caplog.at_level(logging.INFO, logger="journey_bandit.server"):
        serve._compile(needed=False)
    assert said in caplog.text
