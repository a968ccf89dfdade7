"""Statements of the ledger in the words of PostgreSQL. The parts of a store are written once, in SQL that SQLite
understands; what PostgreSQL says otherwise is put into its words here, once for each statement.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_TYPES = {
    "INTEGER": "BIGINT",
    "BLOB": "BYTEA",
    "REAL": "DOUBLE PRECISION",
    "TEXT": 'TEXT COLLATE "C"',  # in the order of bytes, as SQLite has it
}
_TABLE = re.compile(r"\s*CREATE TABLE (\w+)")
_UPSERT = re.compile(r"\s*INSERT OR (REPLACE|IGNORE) INTO (\w+)(\s*\([^)]*\))?")
_NEWEST = r"\bCROSS JOIN (\w+) (\w+) ON \2\.seq IN \(\s*(SELECT seq FROM [^()]* LIMIT \?)\)"
_BY_INDEX = r"CROSS JOIN LATERAL (\3) AS newest JOIN \1 \2 ON \2.seq = newest.seq"
_WORDS = (
    (re.compile(_NEWEST), _BY_INDEX),  # without it, every row is compared with the newest of each
    (re.compile(r"\b(user|only)\b"), r'"\1"'),  # reserved
    (re.compile(r"x'([0-9a-f]*)'"), r"'\\x\1'::bytea"),
    (re.compile(r"\bCROSS JOIN (\w+ \w+ ON)"), r"JOIN \1"),  # SQLite's word for an order of joins
    (re.compile(r"\?(\d*) IS NULL"), r"CAST(?\1 AS TEXT) IS NULL"),  # says of what type a value is
    (re.compile(r"\blower\(hex\(randomblob\(16\)\)\)"), "replace(gen_random_uuid()::text, '-', '')"),
    (re.compile(r"\brandomblob\(16\)"), "uuid_send(gen_random_uuid())"),
    (re.compile(r"\bLIMIT -1\b"), "LIMIT ALL"),
    (re.compile(r"%"), "%%"),
)
_NUMBERED = re.compile(r"\?(\d+)")


class TableForm(NamedTuple):
    """Columns of a table, in order, and those of its primary key."""

    columns: tuple[str, ...]
    key: tuple[str, ...]


def translated(statement: str, tables: Mapping[str, TableForm]) -> str:
    """A statement in the words of PostgreSQL, with psycopg's marks for values: %s, or %(v1)s for numbered ones.
    `tables` says which rows an INSERT OR REPLACE replaces.
    """
    if _TABLE.match(statement):
        statement = _table(statement)
    elif statement.lstrip().startswith("ALTER TABLE"):
        statement = _typed(statement)
    if found := _UPSERT.match(statement):
        statement = _upsert(statement, found, tables)
    for pattern, instead in _WORDS:
        statement = pattern.sub(instead, statement)
    return _NUMBERED.sub(r"%(v\1)s", statement).replace("?", "%s")


def is_numbered(statement: str) -> bool:
    """Whether a statement's marks for values have numbers."""
    return _NUMBERED.search(statement) is not None


def _table(statement: str) -> str:
    """A table whose numbers follow each other without gaps, also after a transaction that failed: SQLite does that by
    itself. Only the transaction that holds the ledger appends.
    """
    name = _TABLE.match(statement)
    statement = re.sub(r"\)\s*STRICT(, WITHOUT ROWID)?\s*$", ")", statement)
    if name is not None:
        statement = re.sub(
            r"\b(seq|key) INTEGER PRIMARY KEY",
            rf"\1 INTEGER PRIMARY KEY DEFAULT next_number('{name[1]}', '\1')",
            statement,
        )
    return _typed(statement)


def _typed(statement: str) -> str:
    return re.sub(r"\b(INTEGER|BLOB|REAL|TEXT)\b", lambda found: _TYPES[found[1]], statement)


def _upsert(statement: str, found: re.Match[str], tables: Mapping[str, TableForm]) -> str:
    instead, table, named = found.groups()
    start = f"INSERT INTO {table}{named or ''}"
    rest = statement[found.end() :]
    if instead == "IGNORE":
        return f"{start}{rest} ON CONFLICT DO NOTHING"
    form = tables[table]
    columns = [name.strip() for name in named.strip(" ()").split(",")] if named else form.columns
    moved = [f"{c} = excluded.{c}" for c in columns if c not in form.key]
    what = f"UPDATE SET {', '.join(moved)}" if moved else "NOTHING"
    return f"{start}{rest} ON CONFLICT ({', '.join(form.key)}) DO {what}"
