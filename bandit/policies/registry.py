"""Policies of installed packages: what a catalogue, a ledger or a snapshot may name besides the built-in ones.

A package offers a class under an entry point of the group `GROUP`, whose name is the policy's tag. This module looks
nowhere by itself: a process that starts says where (`search(importlib.metadata.entry_points)`), and a class is imported
when its name is met for the first time.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, get_args

import msgspec

from bandit.errors import PolicyError
from bandit.policies import AnyPolicy
from bandit.policies.shared import Shared

GROUP = "journey_bandit.policies"

BUILT_IN: dict[str, Any] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyPolicy | Shared)}
"""The built-in policies by their tags."""

_METHODS = ("rows", "design", "sums", "weighted_sums", "sites", "provisional", "posterior", "message")


class PolicyEntryPoint(Protocol):
    """What is used of `importlib.metadata.EntryPoint`."""

    @property
    def name(self) -> str:
        """The policy's tag."""
        ...

    @property
    def value(self) -> str:
        """Module and class, `module:Class`."""
        ...

    def load(self) -> Any:
        """Import the class."""
        ...


PolicySource = Callable[..., Iterable[PolicyEntryPoint]]
"""Called as `source(group=GROUP)`, once."""

_sources: list[PolicySource] = []
_entries: dict[str, list[PolicyEntryPoint]] = {}
_classes: dict[str, type[msgspec.Struct]] = {}


def search(source: PolicySource) -> None:
    """Look for policies there too, from now on. Called by every process that decodes catalogues, ledgers or snapshots;
    calling it again with the same source does nothing.
    """
    if source not in _sources:
        _sources.append(source)
        for entry in source(group=GROUP):
            if entry.value not in [known.value for known in _entries.get(entry.name, ())]:
                _entries.setdefault(entry.name, []).append(entry)


def register(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Make a policy class known to this process alone, under its tag: for notebooks and tests. PolicyError if it is not
    one, or if another class has its tag.
    """
    name = str(kind.__struct_config__.tag)
    known = _classes.get(name, BUILT_IN.get(name))
    if known not in (None, kind):
        raise PolicyError("policy.name", f"{name!r} is {known.__qualname__} already", "give the class another tag")
    _classes[name] = _checked(name, kind)
    return kind


def names() -> list[str]:
    """The tags of all policies that are known here, built-in and installed."""
    return sorted({*BUILT_IN, *_entries, *_classes})


def named(name: str) -> type[msgspec.Struct]:
    """The policy class of a tag. PolicyError, with problem and fix, if none is installed or if what is, is none."""
    if name in BUILT_IN:
        return BUILT_IN[name]  # type: ignore[no-any-return]
    if name not in _classes:
        _classes[name] = _loaded(name)
    return _classes[name]


def requirement(name: str) -> str | None:
    """The pip requirement of the package that provides a policy, `NAME==VERSION`; None for built-in policies, those
    that were registered in this process, and packages that do not say who they are. Raises PolicyError as `named`.
    """
    named(name)
    entries = _entries.get(name, []) if name not in BUILT_IN else []
    dist = getattr(entries[0], "dist", None) if entries else None
    return f"{dist.name}=={dist.version}" if dist is not None else None


def _loaded(name: str) -> type[msgspec.Struct]:
    entries = _entries.get(name, [])
    if not entries:
        fix = f"install the package that provides it (entry point group {GROUP}); known: {', '.join(names())}"
        raise PolicyError("policy.name", f"no policy {name!r} is installed", fix)
    if len(entries) > 1:
        both = " and ".join(entry.value for entry in entries)
        raise PolicyError("policy.name", f"two packages provide {name!r}: {both}", "uninstall one of them")
    (entry,) = entries
    try:
        kind = entry.load()
    except Exception as error:  # whatever a package raises when it is imported
        problem = f"{name!r} is {entry.value}, which cannot be imported: {error!r}"
        raise PolicyError("policy.name", problem, "mend or reinstall its package") from error
    return _checked(name, kind)


def _checked(name: str, kind: Any) -> type[msgspec.Struct]:
    """The class, if it is what `bandit.policies.protocol.Policy` and a catalogue ask of it."""
    if problem := _wrong(name, kind):
        where = f"{getattr(kind, '__module__', '?')}:{getattr(kind, '__qualname__', repr(kind))}"
        fix = (
            f"class …(msgspec.Struct, frozen=True, tag={name!r}, tag_field='name', forbid_unknown_fields=True) with "
            f"link, {', '.join(_METHODS)}"
        )
        raise PolicyError("policy.name", f"{where}, which provides {name!r}, {problem}", fix)
    return kind  # type: ignore[no-any-return]


def _wrong(name: str, kind: Any) -> str | None:
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return "is not a msgspec.Struct"
    config = kind.__struct_config__
    if not config.frozen:
        return "is not frozen"
    if (config.tag, config.tag_field) != (name, "name"):
        return f"has the tag {config.tag_field} = {config.tag!r}"
    if not config.forbid_unknown_fields:
        return "does not forbid unknown fields"
    missing = [part for part in ("link", *_METHODS) if not hasattr(kind, part)]
    if missing:
        return f"lacks {', '.join(missing)}"
    try:
        msgspec.json.Decoder(kind)
    except TypeError as error:
        return f"has a field that JSON cannot hold: {error}"
    return None
