"""Tables of a ledger in PostgreSQL: the migrations of every SQL ledger, in a schema of their own."""

from typing import Any

import psycopg

from api.stores.postgres.connection import PostgresConnection
from api.stores.sql.schema import MIGRATIONS, SCHEMA
from bandit.errors import LedgerError

NAME = "journey_bandit"
"""Schema of the database that has the ledger, where the address names none by `search_path`."""

_USUAL_PATH = '"$user", public'
_NUMBERS = """CREATE OR REPLACE FUNCTION next_number(part text, number text) RETURNS bigint LANGUAGE plpgsql AS
    $$ DECLARE found bigint; BEGIN
    EXECUTE format('SELECT coalesce(max(%I), 0) + 1 FROM %I', number, part) INTO found; RETURN found; END $$"""
_MIGRATED = "CREATE TABLE IF NOT EXISTS ledger_schema (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT"


class _Database:
    """`SqlDatabase` of a connection. What tables it has is looked at before each statement, which may change them."""

    def __init__(self, conn: PostgresConnection):
        self._conn = conn

    @property
    def conn(self) -> PostgresConnection:
        self._conn.look_at_tables()
        return self._conn


def go_to_schema(conn: psycopg.Connection[Any]) -> None:
    """Let a new connection find the ledger's tables. Raises psycopg.Error."""
    path = conn.execute("SHOW search_path").fetchone()
    if path is not None and path[0] == _USUAL_PATH:
        conn.execute(f"SET search_path = {NAME}".encode())


def enter(conn: PostgresConnection) -> None:
    """Make the ledger's schema if it is missing. Raises LedgerError for a database that cannot keep a ledger."""
    encoding = conn.execute("SHOW server_encoding").fetchone()[0]
    if encoding != "UTF8":
        raise LedgerError(f"the database keeps text as {encoding}: create one with ENCODING 'UTF8'")
    path, found = conn.execute("SELECT current_setting('search_path'), current_schema()").fetchone()
    if found is None and path == NAME:
        try:
            conn.control(f"CREATE SCHEMA IF NOT EXISTS {NAME}")
        except psycopg.errors.InsufficientPrivilege as error:
            fix = f"let its owner run CREATE SCHEMA {NAME} AUTHORIZATION the user of this address"
            raise LedgerError(f"the user may not create schema {NAME} in this database: {fix}") from error
    elif found is None:
        raise LedgerError(f"the database has no schema {path}, which the address names: create it, or name another")


def migrate(conn: PostgresConnection) -> None:
    """Bring the tables up to date, in a transaction of the caller. Raises LedgerError for tables of a later version,
    and where the user may not create any.
    """
    number = schema_of(conn)
    try:
        if number < SCHEMA:
            conn.control(_NUMBERS)
            conn.execute(_MIGRATED)
        for done, migration in enumerate(MIGRATIONS[number:], number + 1):
            migration(_Database(conn))
            conn.execute("INSERT INTO ledger_schema VALUES (?, ?)", (done, getattr(migration, "__name__", "")))
    except psycopg.errors.InsufficientPrivilege as error:
        raise LedgerError(f"the user may not create tables there: grant CREATE on the schema ({error})") from error
    conn.look_at_tables()


def schema_of(conn: PostgresConnection) -> int:
    """Number of the form that the tables have; 0 where there are none. Raises LedgerError for one of a later
    version.
    """
    if "ledger_schema" not in conn.table_names:
        return 0
    number = int(conn.execute("SELECT coalesce(max(number), 0) FROM ledger_schema").fetchone()[0])
    if number > SCHEMA:
        what = f"schema {number}, this one reads up to {SCHEMA}"
        raise LedgerError(f"the ledger was written by a later version ({what}): upgrade this one")
    return number


def check(conn: PostgresConnection) -> None:
    """Check that a ledger which is only read has the present tables. Raises LedgerError if it has not."""
    number = schema_of(conn)
    if number == 0:
        raise LedgerError("the database has no ledger: start a service on it once, or give another address")
    if number < SCHEMA:
        fix = "start the service on it once, which brings it up to date"
        raise LedgerError(f"the ledger was written by an earlier version (schema {number} of {SCHEMA}): {fix}")
