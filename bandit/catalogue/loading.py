"""Loading catalogues: the TOML files that come with the package, and the strict parser of any catalogue.

`parse` decodes strictly and reports every mistake at once, of form (`decoding`) and of meaning (`checks`); what it
returns is checked and never changes. Nothing here opens a file outside the package: callers hand over text.
"""

import importlib.resources
import tomllib
from typing import cast

from bandit.catalogue import checks
from bandit.catalogue.decoding import closest, decode
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError, NotFound, Problem


def shipped() -> list[str]:
    """Names of the catalogues that come with the package, sorted; each is one TOML file in `bandit/catalogue/apps`."""
    files = importlib.resources.files("bandit.catalogue.apps").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_shipped(app: str) -> str:
    """TOML text of a catalogue that comes with the package. Raises NotFound, which names the known ones, for any other
    app.
    """
    if app not in shipped():
        raise NotFound("app", f"no shipped catalogue {app!r}", f"{closest(app, shipped())}; or give a FILE.toml")
    return importlib.resources.files("bandit.catalogue.apps").joinpath(f"{app}.toml").read_text(encoding="utf-8")


def parse(text: str, file: str = "catalogue.toml") -> Catalogue:
    """Catalogue parsed from TOML and checked: the only way in which the service, the commands and the tests make one.

    `file` is for the message only. Raises CatalogueError for text that is not TOML, and otherwise with every mistake at
    once, each with its path (`stages.cart.floor`) and its fix.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(file, [Problem("(file)", f"not TOML: {error}", "mend the syntax there")]) from None
    form, meaning = list[Problem](), list[Problem]()
    catalogue = decode(raw, Catalogue, "", form, lambda struct, path: meaning.extend(checks.check(struct, path)))
    mistakes = [*form, *meaning, *checks.check_names(raw)]
    if mistakes:
        raise CatalogueError(file, mistakes)
    return cast(Catalogue, catalogue)
