"""Release log of a SQL ledger."""

import msgspec

from api.stores.sql.connections import SqlPart
from api.stores.sql.rows.decisions import (
    RELEASE_COLUMNS,
    insert,
)
from bandit.records import Release


class SqlReleaseLog(SqlPart):
    """`ReleaseLog` of one SQL ledger."""

    def publish(self, release: Release) -> Release:
        """As `ReleaseLog.publish`, in one transaction."""
        row = tuple(getattr(release, column) for column in RELEASE_COLUMNS)
        with self._ledger.transaction() as conn:
            number = conn.execute(f"{insert('releases', RELEASE_COLUMNS)} RETURNING seq", row).fetchone()[0]
        return msgspec.structs.replace(release, seq=number)

    def releases(self, stage: str | None = None) -> list[Release]:
        """As `ReleaseLog.releases`."""
        columns = ("seq", *RELEASE_COLUMNS)
        query = f"SELECT {', '.join(columns)} FROM releases WHERE ? IS NULL OR stage = ? ORDER BY seq"  # noqa: S608
        found = (dict(zip(columns, row, strict=True)) for row in self._ledger.rows(query, (stage, stage)))
        return [Release(**{**row, "judge": bool(row["judge"])}) for row in found]
