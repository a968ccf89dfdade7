"""PostgreSQL store: a ledger in a database, by the same statements as the SQLite store."""

from collections.abc import Callable
from contextlib import ExitStack

import psycopg

from api.stores.postgres.connections import PostgresConnections
from api.stores.postgres.replica_log import PostgresReplicaLog
from bandit.errors import LedgerError


class PostgresStore(PostgresReplicaLog):
    """`Store` in one schema of a PostgreSQL database, opened by `postgresql://…`. `shared`: other processes may write
    to it too, if they share it; otherwise this one owns it.
    """

    def __init__(self, url: str, *, read_only: bool = False, shared: bool = False):
        with ExitStack() as opening:
            try:
                self._database = PostgresConnections(url, opening, read_only=read_only, shared=shared)
                super().__init__(self._database, opening)
            except psycopg.Error as error:
                raise LedgerError(f"the database cannot be used as a ledger: {error}") from error
            self._opened = opening.pop_all()

    def describe(self) -> dict[str, str]:
        """As `Store.describe`."""
        version = self._ledger.rows("SHOW server_version")[0][0]
        return {"engine": "postgresql", "version": version, "synchronous": self._database.synchronous}

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        """As `Store.quick_damages`: nothing; the database checks its pages as it reads them."""
        del over
        return []
