"""Webhook queue of a ledger: up to where each endpoint was told, and messages that it has not taken."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec


class WebhookCursor(msgspec.Struct, frozen=True):
    """Cursor of an endpoint: numbers of the last decision, settlement, release and operator's action that it was told
    of, how many alarms of drift and about keys by stage, and the first decision of the last era of declarations (0:
    none).
    """

    decision: int
    settlement: int
    alarms: dict[str, int]
    era: int
    release: int = 0
    reward_alarms: dict[str, int] = {}
    operator_action: int = 0


class WebhookDelivery(NamedTuple):
    """Message that an endpoint has not taken. `event`: its id. `due`: its next attempt (µs); `dead`: it was given
    up.
    """

    endpoint: str
    event: str
    body: bytes
    attempts: int
    due: int
    error: str
    dead: bool
    at: int


class WebhookQueue(Protocol):
    """Deliveries of one ledger's webhooks.

    Guarantees. Atomicity: a cursor moves in the same transaction in which the messages it passes are queued, so that no
    message is lost; after a crash one may be sent again, with the same id. Threads and errors as `DecisionLog`.
    """

    def webhook_cursor(self, endpoint: str) -> WebhookCursor | None:
        """Cursor of an endpoint, None before it was ever told anything."""
        ...

    def webhook_deliveries(self, endpoint: str | None = None, *, dead: bool) -> list[WebhookDelivery]:
        """Messages that an endpoint, or any, has not taken and that were given up or not, in the order in which they
        are due.
        """
        ...

    def update_webhook_queue(
        self,
        cursors: dict[str, WebhookCursor],
        put: Sequence[WebhookDelivery],
        gone: Sequence[tuple[str, str]],
        most_dead: int | None = None,
    ) -> None:
        """Move cursors by endpoint, add or replace messages, and forget those of (endpoint, event), in one transaction.
        Of dead ones each endpoint concerned keeps the newest `most_dead`.
        """
        ...
