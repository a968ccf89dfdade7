"""Webhook queue of a SQL ledger: cursors and deliveries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.stores.sql.connection import SqlConnection
from api.stores.sql.connections import SqlPart
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery

_COLUMNS = "endpoint, event, body, attempts, due, error, dead, at"


class SqlWebhookQueue(SqlPart):
    """`WebhookQueue` of one SQL ledger."""

    def webhook_deliveries(self, endpoint: str | None = None, *, dead: bool) -> list[WebhookDelivery]:
        """As `WebhookQueue.webhook_deliveries`."""
        return deliveries(self._ledger.rows, endpoint, dead=dead)

    def webhook_cursor(self, endpoint: str) -> WebhookCursor | None:
        """As `WebhookQueue.webhook_cursor`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return cursor(conn, endpoint)

    def update_webhook_queue(
        self,
        cursors: dict[str, WebhookCursor],
        put: Sequence[WebhookDelivery],
        gone: Sequence[tuple[str, str]],
        most_dead: int | None = None,
    ) -> None:
        """As `WebhookQueue.update_webhook_queue`, in one transaction."""
        with self._ledger.transaction() as conn:
            move_cursors(conn, cursors)
            keep_deliveries(conn, put, gone, most_dead)


def deliveries(
    rows: Callable[[str, Sequence[Any]], list[Any]], endpoint: str | None, *, dead: bool
) -> list[WebhookDelivery]:
    """Deliveries of an endpoint, or of all endpoints for None, dead or waiting, in the order in which they are due.
    `rows` runs a query on a reading connection.
    """
    query = f"""SELECT {_COLUMNS} FROM webhook_deliveries WHERE dead = ?2 AND (?1 IS NULL OR endpoint = ?1)
                ORDER BY due, endpoint, event"""  # noqa: S608
    return [WebhookDelivery(*row)._replace(dead=bool(row[6])) for row in rows(query, (endpoint, int(dead)))]


def keep_deliveries(
    conn: SqlConnection, put: Sequence[WebhookDelivery], gone: Sequence[tuple[str, str]], most_dead: int | None
) -> None:
    """Add or replace deliveries, forget those of `gone` (endpoint, event), and of each endpoint's dead ones keep the
    newest `most_dead`. Whoever calls holds the transaction.
    """
    insert = f"INSERT OR REPLACE INTO webhook_deliveries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    conn.executemany(insert, put)
    conn.executemany("DELETE FROM webhook_deliveries WHERE endpoint = ? AND event = ?", gone)
    if most_dead is not None:
        query = """DELETE FROM webhook_deliveries WHERE endpoint = ?1 AND event IN (SELECT event FROM webhook_deliveries
                   WHERE endpoint = ?1 AND dead = 1 ORDER BY at DESC, event DESC LIMIT -1 OFFSET ?2)"""
        conn.executemany(query, [(one, most_dead) for one in {delivery.endpoint for delivery in put}])


def cursor(conn: SqlConnection, endpoint: str) -> WebhookCursor | None:
    """Cursor of an endpoint with its alarms by stage; None before it has one. Whoever calls holds a reading
    transaction.
    """
    row = conn.execute(
        "SELECT decision, settlement, era, release, operator_action FROM webhook_cursors WHERE endpoint = ?",
        (endpoint,),
    ).fetchone()
    if row is None:
        return None
    query = "SELECT stage, alarms, reward_alarms FROM webhook_alarm_cursors WHERE endpoint = ?"
    told = conn.execute(query, (endpoint,)).fetchall()
    return WebhookCursor(
        decision=row[0],
        settlement=row[1],
        alarms={stage: n for stage, n, _ in told},
        era=row[2],
        release=row[3],
        reward_alarms={stage: n for stage, _, n in told if n},
        operator_action=row[4],
    )


def move_cursors(conn: SqlConnection, cursors: Mapping[str, WebhookCursor]) -> None:
    """Replace cursors by endpoint, with their alarms by stage. Whoever calls holds the transaction."""
    rows = [
        (endpoint, c.decision, c.settlement, c.era, c.release, c.operator_action) for endpoint, c in cursors.items()
    ]
    conn.executemany("INSERT OR REPLACE INTO webhook_cursors VALUES (?, ?, ?, ?, ?, ?)", rows)
    alarms = [
        (endpoint, stage, n, c.reward_alarms.get(stage, 0))
        for endpoint, c in cursors.items()
        for stage, n in c.alarms.items()
    ]
    conn.executemany("INSERT OR REPLACE INTO webhook_alarm_cursors VALUES (?, ?, ?, ?)", alarms)
