"""Files of a twin: its central scenario as commented TOML, and its draws beside it, one scenario in JSON a line."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from simulations.scenario import Scenario

_WIDTH = 110


def write(scenario: Scenario, draws: Iterable[Scenario], file: Path, head: Iterable[str]) -> Path:
    """Write a twin to `file`, whose name ends in .toml, and its draws beside it; returns the path of the draws. `head`:
    lines of comment at the top. Contexts stand once, in the TOML.
    """
    beside = file.with_name(f"{file.stem}.draws.jsonl")
    text = [msgspec.json.encode(_bare(one)).decode() for one in draws]
    beside.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    named = msgspec.structs.replace(scenario, draws=beside.name)
    file.write_text(
        "".join(f"{line}\n" for line in (*(f"# {line}".rstrip() for line in head), *_lines(named))), "utf-8"
    )
    return beside


def _bare(one: Scenario) -> Scenario:
    """A scenario without what its twin's file has already."""
    journey = {name: msgspec.structs.replace(leg, contexts={}) for name, leg in one.journey.items()}
    return msgspec.structs.replace(one, contexts={}, draws="", journey=journey)


def _lines(scenario: Scenario) -> Iterable[str]:
    """TOML of a scenario, without what has its default: plain keys, then tables, contexts last."""
    built: dict[str, Any] = msgspec.to_builtins(scenario)
    neutral: dict[str, Any] = {
        field.name: msgspec.to_builtins(field.default)
        for field in msgspec.structs.fields(Scenario)
        if field.default is not msgspec.NODEFAULT
    }
    said = {key: value for key, value in built.items() if key not in neutral or value != neutral[key]}
    said = {key: value for key, value in said.items() if value not in ({}, [])}
    contexts, journey = said.pop("contexts", {}), said.pop("journey", {})
    yield from (f"{_key(key)} = {_value(value)}" for key, value in said.items() if not isinstance(value, dict))
    for key, table in said.items():
        if isinstance(table, dict):
            yield from _table(key, table)
    for name, leg in journey.items():
        seen = leg.pop("contexts", {})
        short = {key: value for key, value in leg.items() if value not in ({}, [], None)}
        yield from _table(f"journey.{_key(name)}", short)
        if seen:
            yield from _columns(f"journey.{_key(name)}.contexts", seen)
    if contexts:
        yield from _columns("contexts", contexts)


def _table(path: str, table: Mapping[str, Any]) -> Iterable[str]:
    """A table: its own keys, and a table for each of its keys that is too long for a line."""
    long = {key: value for key, value in table.items() if isinstance(value, dict) and _is_long(key, value)}
    yield ""
    yield f"[{path}]"
    yield from (f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in long)
    for key, value in long.items():
        yield from _table(f"{path}.{_key(key)}", value)


def _is_long(key: str, value: Mapping[str, Any]) -> bool:
    return len(key) + len(_value(value)) > _WIDTH or any(isinstance(part, dict) and part for part in value.values())


def _columns(path: str, columns: Mapping[str, list[Any]]) -> Iterable[str]:
    yield ""
    yield f"[{path}] # features of visits as they were seen, a value for each"
    for name, column in columns.items():
        yield f"{_key(name)} = {_value(column)}"


def _key(name: str) -> str:
    plain = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if plain else msgspec.json.encode(name).decode()


def _value(value: Any) -> str:
    """A value as TOML. JSON's texts are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}" if value % 1 else f"{value:.1f}"
    return msgspec.json.encode(value).decode()
