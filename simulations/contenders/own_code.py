"""Own code: policies and environments in plain Python, named on a command line or handed over in a notebook.

python:rules.py:cautious     `cautious` in the file rules.py
python:shop.rules:cautious   `cautious` in an importable module

A policy is a rule, or what makes a `protocol.Contender`. A rule is a function of what the app sends and the names of
the arms that may be shown; it returns a name, or {name: probability}:

    def cautious(context, eligible):
        return "reminder" if "reminder" in eligible and context["lessons"] > 3 else "none"
"""

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bandit.arrays import Array, Mask
from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, JourneyBanditError, Problem
from simulations.contenders.protocol import MakeContender

Rule = Callable[[Mapping[str, Any], Sequence[str]], str | Mapping[str, float]]
"""A rule: context in the features' own units and eligible arms by name → an arm, or probabilities of arms that sum to
1.
"""


class LoadedCode(NamedTuple):
    """What a specification `python:…` names: the object, and the SHA-256 of the file that it stands in."""

    value: Any
    sha256: str


def load(text: str, what: str = "policy") -> LoadedCode:
    """Load what `python:FILE.py:NAME` or `python:MODULE:NAME` names; `what` is for messages. The code is run: it can do
    whatever Python can.

    Raises InvalidRequest if the file, the module or the name is not there, or if importing it raises.
    """
    place, _, name = text.removeprefix("python:").rpartition(":")
    field = f"{what} {text}"
    if not (place and name):
        raise InvalidRequest(Problem(field, "no place and name", "e.g. python:rules.py:cautious"))
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:  # whatever somebody's module raises
        raise InvalidRequest(Problem(field, f"cannot be imported: {error!r}", "mend it there")) from error
    if not callable(value := getattr(module, name, None)):
        names = [key for key, one in vars(module).items() if callable(one) and not key.startswith("_")]
        raise InvalidRequest(Problem(field, f"{place} has nothing to call named {name!r}", closest(name, names)))
    file = getattr(module, "__file__", None)
    return LoadedCode(value, hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest())


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"own_code_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: PT018, S101 – the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def is_rule(value: Any) -> bool:
    """Whether a callable is a rule (of context and eligible arms) and not what makes a contender. A class makes
    contenders, and so does a function whose first parameter is called `stages`.
    """
    if inspect.isclass(value):
        return False
    try:
        first = next(iter(inspect.signature(value).parameters), "")
    except (TypeError, ValueError):
        return True
    return first != "stages"


@contextmanager
def named(text: str, field: str) -> Iterator[None]:
    """Around a call of own code: whatever it raises becomes an InvalidRequest that names its file and line. What
    `text` does not name as `python:…` keeps its error, with its traceback.
    """
    try:
        yield
    except JourneyBanditError:
        raise
    except Exception as error:
        if not text.startswith("python:"):
            raise
        raise InvalidRequest(Problem(field, f"raised {error!r}{_line(error)}", "mend it there")) from error


def _line(error: Exception) -> str:
    """Where in own code an error was raised: the last line that is neither ours nor a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename)]
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _is_foreign(file: str) -> bool:
    return "site-packages" in file or Path(file).is_relative_to(Path(__file__).parents[1])


def maker(value: MakeContender, field: str) -> MakeContender:
    """A checked maker: what it makes must have `decide` and `learn`. Raises InvalidRequest, when called, if not."""

    def make(stages: Any, seed: int) -> Any:
        made = value(stages, seed)
        missing = [name for name in ("decide", "learn") if not callable(getattr(made, name, None))]
        if missing:
            fix = "see simulations.contenders.protocol.Contender"
            raise InvalidRequest(Problem(field, f"what it makes lacks {' and '.join(missing)}", fix))
        return made

    return make


def probabilities(
    rule: Rule, contexts: Sequence[Mapping[str, Any]], names: tuple[str, ...], eligible: Mask, field: str
) -> Array:
    """Probabilities (n, k) of a rule for n contexts and eligible arms (n, k) of these names. Raises InvalidRequest for
    an arm that is not eligible, and for probabilities below 0 or that do not sum to 1.
    """
    found, place = np.zeros(eligible.shape), {name: a for a, name in enumerate(names)}
    for i, context in enumerate(contexts):
        may = [name for name, is_eligible in zip(names, eligible[i], strict=True) if is_eligible]
        answer = rule(context, may)
        if not isinstance(answer, str | Mapping):
            raise InvalidRequest(Problem(field, f"answered {answer!r}", "an arm, or {arm: probability}"))
        shares = {answer: 1.0} if isinstance(answer, str) else dict(answer)
        if not all(isinstance(share, int | float) and math.isfinite(share) for share in shares.values()):
            raise InvalidRequest(Problem(field, f"probabilities {shares}", "0 or more each, with the sum 1"))
        for name, share in shares.items():
            if name not in may:
                raise InvalidRequest(Problem(field, f"chose {name!r}, which may not be shown", closest(str(name), may)))
            found[i, place[name]] = share
        if min(shares.values(), default=0.0) < 0.0 or abs(sum(shares.values()) - 1.0) > 1e-9:
            raise InvalidRequest(Problem(field, f"probabilities {shares}", "0 or more each, with the sum 1"))
    return found
