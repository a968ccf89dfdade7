"""Webhook dispatcher: a sending thread for each endpoint, which nobody waits for.

The ledger is the outbox. Each endpoint has a cursor in it, kept in the ledger too; what was made since is sent in
order, then the cursor is moved. A message that was refused is kept as a delivery with the time of its next attempt, and
the cursor passes it. So every message is sent at least once, whatever is restarted; one that came may come again, with
its id.
"""

import asyncio
import http.client
import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from api.clocks import Clock
from api.learning.worker import Worker
from api.ledger.statistics_store import key_of
from api.metrics import Metrics
from api.stores.decision_log import LedgerPosition
from api.stores.protocol import Store
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery
from api.webhooks import addresses
from api.webhooks.config import (
    Endpoint,
    WebhookMessage,
    decision_made,
    drift_alarm,
    operator_action,
    promoted,
    released,
    reward_alarm,
    reward_matured,
    signed,
)
from bandit.catalogue.model import Catalogue
from bandit.learning.drift import DriftState
from bandit.records import Release
from bandit.reporters.reward_watch import RewardWatch

log = logging.getLogger("journey_bandit.webhooks")

Traceparents = Callable[[uuid.UUID], str]
"""W3C `traceparent` of the request that made a decision, "" where none is known. Any thread may ask."""


def untraced(_: uuid.UUID) -> str:
    """Traceparents of a service without traces."""
    return ""


_PAGE = 100  # messages between two moves of the place
_LETTERS = 1000  # that wait for another attempt: beyond, nothing new is begun
_DEAD = 10_000  # that are kept
_SLOWEST = 3_600_000_000  # µs between attempts
_ABOUT_ONE = ("decision:", "reward:")  # beginnings of messages about one decision
_POLL = 0.2  # seconds between looks at the ledger


class WebhookDispatcher:
    """Dispatcher of one service's webhooks: it starts, stops and replaces the senders of its endpoints.

    Guarantees: every message of a kind that an endpoint wants is sent until the endpoint takes it or its attempts are
    used up; messages of one kind are first sent in the order of the ledger; a slow or failing endpoint delays neither
    decisions nor other endpoints. Threads: senders read the ledger, and write to it only through the worker's thread;
    `start`, `stop` and `replace` block, and are called one at a time: before or after the app serves, or in another
    thread than the event loop's; `again` is called in the event loop.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        catalogue: Catalogue,
        store: Store,
        worker: Worker,
        clock: Clock,
        metrics: Metrics,
        traceparents: Traceparents = untraced,
    ):
        self._store = store
        self._worker = worker
        self._clock = clock
        self._around = catalogue, store, worker, clock, metrics, traceparents
        self.endpoints = dict(endpoints)
        self._senders = {name: EndpointSender(name, endpoint, *self._around) for name, endpoint in endpoints.items()}

    def start(self) -> None:
        """Start to send what is made from now on, and what endpoints have not been sent since their cursors. The worker
        must run: cursors are written by its thread.
        """
        for sender in self._senders.values():
            sender.begin()
            sender.start()

    def stop(self) -> None:
        """Stop all senders. What is being sent is given up, and will be sent again; waits up to five
        seconds for each.
        """
        _deadline(self._senders.values())

    def replace(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Send to these endpoints from now on. One that is unchanged goes on; one that is new begins now; one that came
        back or was changed goes on from its cursor.
        """
        gone = [name for name, endpoint in self.endpoints.items() if endpoints.get(name) != endpoint]
        _deadline([self._senders.pop(name) for name in gone])
        for name in endpoints.keys() - self._senders.keys():
            self._senders[name] = sender = EndpointSender(name, endpoints[name], *self._around)
            sender.begin()
            sender.start()
        self.endpoints = dict(endpoints)

    def dead(self) -> list[WebhookDelivery]:
        """Dead letters: deliveries that were given up after all their attempts, oldest first. Reads the ledger."""
        return sorted(self._store.webhook_deliveries(dead=True), key=lambda one: one.at)

    async def again(self, endpoint: str | None = None) -> int:
        """Revive the dead letters of one endpoint or of all, and return how many: they begin again with their first
        attempt. Raises Overloaded and Unavailable.
        """

        def revive() -> int:
            letters = [
                one._replace(dead=False, attempts=0, due=self._clock())
                for one in self.dead()
                if endpoint in (None, one.endpoint)
            ]
            self._store.update_webhook_queue({}, letters, [])
            return len(letters)

        return await asyncio.wrap_future(self._worker.run(revive))


def _deadline(senders: Collection["EndpointSender"]) -> None:
    for sender in senders:
        sender.stop()
    for sender in senders:
        sender.join(timeout=5.0)


class EndpointSender(threading.Thread):
    """Sender of one endpoint: a daemon thread that polls the ledger five times a second. A failed delivery is tried
    again after 1, 2, 4, … seconds, up to an hour between attempts; an endpoint that does not answer at all gets nothing
    more in that round.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        catalogue: Catalogue,
        store: Store,
        worker: Worker,
        clock: Clock,
        metrics: Metrics,
        traceparents: Traceparents = untraced,
    ):
        super().__init__(name=f"webhooks-{name}", daemon=True)
        self._endpoint_name, self._endpoint = name, endpoint
        self._catalogue = catalogue
        self._store = store
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._traceparents = traceparents
        self._stopping = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._place: WebhookCursor | None = (
            None  # where it is; the ledger may say less, where there was nothing to tell
        )
        self._last: tuple[LedgerPosition, int] | None = None  # what the ledger held when everything was sent

    def begin(self) -> None:
        """Give the endpoint a cursor at the ledger's present end, if it has none: it is not told of what was before.
        Called before `start`; waits for the worker.
        """
        if self._store.webhook_cursor(self._endpoint_name) is None:
            last, watches = self._store.last(), list(self._watches())
            drift = {name: len(drifted.alarms) for name, drifted, _ in watches}
            keys = {name: len(accused.alarms) for name, _, accused in watches}
            done = len(self._store.operator_actions())
            place = WebhookCursor(last.decision, last.settlement, drift, self._era(), last.release, keys, done)
            self._move(place, [], [])

    def stop(self) -> None:
        """Ask the thread to end, and cut the connection that it sends on. The caller joins it."""
        self._stopping.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(2)

    def run(self) -> None:
        """Loop of the thread: look, send, look again. An error is logged once while it lasts, and whatever failed is
        done again.
        """
        told = ""
        while not self._stopping.is_set():
            try:
                busy, problem = self._round(), ""
            except Exception as error:  # noqa: BLE001 - the thread must live: what it could not do it does again
                busy, problem = False, f"{type(error).__name__}: {error}"
            if problem and problem != told and not self._stopping.is_set():
                log.warning("webhooks to %s wait: %s", self._endpoint_name, problem)
            told = problem
            if not busy:
                self._stopping.wait(_POLL)

    # -- inside ------------------------------------------------------------------------------------------------

    def _round(self) -> bool:
        """Whether there may be more to send at once. Where nobody answers, nothing more is tried until the next."""
        if not self._worker.leading:  # another replica sends; the place may move on meanwhile
            self._place = self._last = None
            return False
        last, now = (self._store.last(), len(self._store.operator_actions())), self._clock()
        waiting = self._store.webhook_deliveries(self._endpoint_name, dead=False)
        self._metrics.letters.labels(self._endpoint_name).set(len(waiting))
        due = [letter for letter in waiting if letter.due <= now][:_PAGE]
        if last == self._last and not due:
            return False
        before = self._place or self._store.webhook_cursor(self._endpoint_name)
        assert before is not None  # noqa: S101 - `begin` wrote it
        self._place, self._last = None, None  # unless all of this goes well, begin again with what the ledger says
        after, new, more = self._new(before, last[0]) if len(waiting) < _LETTERS else (before, [], True)
        fresh = [WebhookDelivery(self._endpoint_name, m.id, m.body, 0, now, "", dead=False, at=now) for m in new]
        put, gone = list[WebhookDelivery](), list[str]()
        reached = True
        for letter in (*due, *fresh):
            if self._stopping.is_set():
                return False
            if reached:
                reached, error = self._send(WebhookMessage(letter.event, letter.body))
                self._outcome(letter, error, put, gone)
            elif letter.attempts == 0:
                put.append(letter)
        if self._stopping.is_set():  # what was being sent was cut: it is sent again
            return False
        if put or gone:
            self._move(after, put, gone)
        self._place, self._last = after, None if more else last
        return more and bool(new) and reached

    def _move(self, place: WebhookCursor, put: list[WebhookDelivery], gone: list[str]) -> None:
        cursors = {self._endpoint_name: place}
        pairs = [(self._endpoint_name, event) for event in gone]
        self._worker.run(
            lambda: self._store.update_webhook_queue(cursors, self._about_known(put), pairs, _DEAD)
        ).result()

    def _about_known(self, put: list[WebhookDelivery]) -> list[WebhookDelivery]:
        """Messages but those about decisions that were erased while they were being sent. In the writer's thread."""
        about = {one.event: uuid.UUID(one.event.partition(":")[2]) for one in put if one.event.startswith(_ABOUT_ONE)}
        known = self._store.decisions_by_id(list(about.values())) if about else {}
        return [one for one in put if one.event not in about or about[one.event] in known]

    def _outcome(self, letter: WebhookDelivery, error: str, put: list[WebhookDelivery], gone: list[str]) -> None:
        """What becomes of a letter after an attempt."""
        if not error:
            gone.append(letter.event)
            return
        attempts, now = letter.attempts + 1, self._clock()
        dead = attempts >= self._endpoint.attempts
        pause = min(1_000_000 << min(attempts - 1, 30), _SLOWEST)
        put.append(letter._replace(attempts=attempts, due=now + pause, error=error[:200], dead=dead))
        self._metrics.webhooks.labels(self._endpoint_name, "dead" if dead else "failed").inc()
        if dead:
            log.error("webhook %s to %s was given up: %s", letter.event, self._endpoint_name, error)

    def _send(self, message: WebhookMessage) -> tuple[bool, str]:
        """Whether anybody answered, and why the message was not taken, or "". Redirects are not followed."""
        url = urlsplit(self._endpoint.url)
        headers = signed(self._endpoint.key, message, self._clock() // 1_000_000)
        kind: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        options: dict[str, Any] = {"timeout": self._endpoint.timeout}
        if url.scheme == "https":
            kind, options = http.client.HTTPSConnection, options | {"context": ssl.create_default_context()}
        self._connection = connection = kind(url.hostname or "", url.port, **options)
        # http.client's own seam: TLS still asks for a certificate of the name
        connection._create_connection = self._connected  # type: ignore[attr-defined]
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, message.body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return False, f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        if 200 <= status < 300:
            self._metrics.webhooks.labels(self._endpoint_name, "delivered").inc()
            return True, ""
        return True, f"answered {status}"

    def _connected(self, where: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        """Connection to an address that messages may go to."""
        return addresses.connect(where, timeout, private=self._endpoint.private)

    def _new(self, place: WebhookCursor, last: LedgerPosition) -> tuple[WebhookCursor, list[WebhookMessage], bool]:
        """What came since, a page of each kind at most; the place behind it; whether there is more."""
        app, specs, wanted = self._catalogue.app, self._store.specs(), self._endpoint.events
        made = self._store.decisions_after(place.decision, _PAGE) if "decision" in wanted else []
        ended = self._store.settlements_after(place.settlement, _PAGE) if "reward" in wanted else []
        messages = [
            decision_made(app, found, specs[found.decision.stage_digest], self._traceparents(found.decision.id))
            for found in made
            if found.decision.is_actionable and not found.decision.is_remainder
        ]
        messages += [reward_matured(app, found.as_of(n)) for n, found in ended if not found.decision.is_remainder]
        drift, keys = dict(place.alarms), dict(place.reward_alarms)
        for stage, drifted, accused in self._watches():
            known, drift[stage] = place.alarms.get(stage, 0), len(drifted.alarms)
            if "drift" in wanted:
                messages += [drift_alarm(app, stage, n, one) for n, one in enumerate(drifted.alarms[known:], known)]
            known, keys[stage] = place.reward_alarms.get(stage, 0), len(accused.alarms)
            if "reward_alarm" in wanted:
                messages += [reward_alarm(app, stage, n, one) for n, one in enumerate(accused.alarms[known:], known)]
        if "promotion" in wanted:
            messages += self._promotions(place.era)
            messages += self._released(place.release)
        actions = self._store.operator_actions()
        if "operator_action" in wanted:
            messages += [operator_action(app, one) for one in actions[place.operator_action :]]
        full = len(made) == _PAGE, len(ended) == _PAGE
        decision = made[-1].seq if made else place.decision if "decision" in wanted else last.decision
        settlement = ended[-1][0] if ended else place.settlement if "reward" in wanted else last.settlement
        cursor = WebhookCursor(decision, settlement, drift, self._era(), last.release, keys, len(actions))
        return cursor, messages, any(full)

    def _watches(self) -> Iterator[tuple[str, DriftState, RewardWatch]]:
        for name, stage in self._catalogue.stages.items():
            kept = self._store.statistics(key_of(name, stage), (), 0)
            yield name, kept.drift_state, kept.reward_watch

    def _era(self) -> int:
        """First decision of the last era of declarations, 0 before any."""
        return max((era.first for era in self._store.declarations().eras), default=0)

    def _promotions(self, after: int) -> Iterator[WebhookMessage]:
        """Stages that another policy decides for since the era that began with decision number `after`."""
        specs = self._store.specs()
        for last, era in pairwise(self._store.declarations().eras):
            for stage in era.digests.keys() & last.digests.keys() if era.first > after else ():
                old, new = specs[last.digests[stage]], specs[era.digests[stage]]
                if old.policy != new.policy:
                    yield promoted(self._catalogue.app, stage, era.first, old, new, self._clock())

    def _released(self, after: int) -> Iterator[WebhookMessage]:
        """Approved versions that decide since, or were taken back."""
        served = dict[str, Release]()
        for release in self._store.releases():
            if release.seq > after:
                yield released(self._catalogue.app, served.get(release.stage), release)
            if not release.judge:  # who is judged decides beside it, not instead
                served[release.stage] = release
