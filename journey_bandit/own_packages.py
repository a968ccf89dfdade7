"""Whether `bandit`, `api`, `experiments` and `simulations` are the packages of this distribution.

Others use these names too: PyCQA's linter is a package called `bandit`. Whoever is first on `sys.path` wins, and what
then fails is an import somewhere in the middle. So the program and the library look before they import: each package of
ours has the line `MARK` in its `__init__.py`, which is read here and not run.
"""

import importlib.util
import sys
from pathlib import Path

NAMES = ("bandit", "api", "experiments", "simulations")
MARK = "JOURNEY_BANDIT = True"


def problem() -> str | None:
    """One line about the first package that is not ours: what hides it, where that lies, and what to do. None if all
    four are ours. Called before anything of them is imported; takes a millisecond.
    """
    return next((line for name in NAMES if (line := _problem(name))), None)


def _problem(name: str) -> str | None:
    ours = Path(__file__).parent.parent / name
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec stands in for it
        spec = None
    if spec is None or not spec.origin:
        return (
            f"the package `{name}` of Journey Bandit is missing at {ours}: pip install --force-reinstall journey-bandit"
        )
    found = Path(spec.origin)
    if _marked(name, found, ours):
        return None
    if found.parent == ours:  # two distributions wrote to one folder
        fix = "uninstall the other distribution, then pip install --force-reinstall journey-bandit"
        return f"the package `{name}` at {found.parent} was overwritten by another distribution: {fix}"
    place = found.parent.parent if found.name == "__init__.py" else found.parent
    fix = f"take {place} from PYTHONPATH, start in another folder, or uninstall the other distribution"
    if name in sys.modules:
        fix += "; or import journey_bandit before it"
    return f"another package `{name}` at {found} hides the one of Journey Bandit at {ours}: {fix}"


def _marked(name: str, file: Path, ours: Path) -> bool:
    """Whether the source has our line. Read through its loader, so that packages in archives are found too. Where there
    is no source, only bytecode, the place tells.
    """
    spec = importlib.util.find_spec(name)
    read = getattr(spec.loader, "get_source", None) if spec else None
    try:
        source = read(name) if read else file.read_text(encoding="utf-8")
    except (ImportError, OSError, UnicodeDecodeError):
        return False
    return file.parent == ours if source is None else MARK in source.splitlines()
