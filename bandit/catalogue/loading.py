"""Loading catalogues: the TOML files that come with the package, and the strict parser of any catalogue.

`parse` decodes strictly and reports every mistake at once, of form (`decoding`) and of meaning (`checks`); what it
returns is checked and never changes. Nothing here opens a file outside the package: callers hand over text.
"""

import importlib.resources
import tomllib
from typing import Any, cast

import msgspec

from bandit.catalogue import checks
from bandit.catalogue.decoding import OpenUnion, closest, decode
from bandit.catalogue.model import Catalogue, Stage
from bandit.errors import CatalogueError, NotFound, PolicyError, Problem
from bandit.policies import AnyPolicy, registry
from bandit.policies.shared import Shared


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


_INSTALLED = OpenUnion(registry.names, registry.named, "or install the package that provides it")


def read_stage(value: Any) -> Stage:
    """Stage declaration from what `msgspec.to_builtins` made of it: how ledgers and snapshots are read.

    Raises PolicyError if its policy is not installed, or is installed in a version that has other fields, and
    msgspec.ValidationError if `value` is no stage.
    """
    declared = value.get("policy") if isinstance(value, dict) else None
    name = declared.get("name") if isinstance(declared, dict) else None
    if not isinstance(name, str) or name in registry.BUILT_IN:
        return msgspec.convert(value, Stage)
    try:
        policy = msgspec.convert(declared, registry.named(name))
    except msgspec.ValidationError as error:
        problem = f"what was stored does not fit the policy {name!r} that is installed: {error}"
        raise PolicyError("policy", problem, "install the version of its package that it was stored with") from error
    stage = msgspec.convert({key: part for key, part in value.items() if key != "policy"}, Stage)
    return msgspec.structs.replace(stage, policy=policy)


def read_toml(text: str, file: str) -> dict[str, Any]:
    """The tables of a TOML text, of a catalogue or a scenario. Raises CatalogueError for text that is not TOML; `file`
    is for the message.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(file, [Problem("(file)", f"not TOML: {error}", "mend the syntax there")]) from None


def parse(text: str, file: str = "catalogue.toml") -> Catalogue:
    """Catalogue parsed from TOML and checked: the only way in which the service, the commands and the tests make one.

    `file` is for the message only. Raises CatalogueError for text that is not TOML, and otherwise with every mistake at
    once, each with its path (`stages.cart.floor`) and its fix. Policies may be those of installed packages.
    """
    raw = read_toml(text, file)
    form, meaning = list[Problem](), list[Problem]()
    unions = {AnyPolicy | Shared: _INSTALLED}
    catalogue = decode(
        raw, Catalogue, "", form, lambda struct, path: meaning.extend(checks.check(struct, path)), unions
    )
    mistakes = [*form, *meaning, *checks.check_names(raw)]
    if catalogue is not None:
        mistakes += checks.check_bounds(raw, catalogue.stages)
    if mistakes:
        raise CatalogueError(file, mistakes)
    return cast(Catalogue, catalogue)
