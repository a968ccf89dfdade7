"""Prometheus metrics of a service, in the types of prometheus_client. Each app has a registry of its own and none is
global, so that two services in one process, as in tests, do not add up.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bandit.budgets import MICRO, BudgetAccount
from bandit.learning.loss_statement import LossStatement

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_PROPENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
_ROWS = (1, 4, 16, 64, 256, 1024)
_PARTS = ("clock", "ledger", "learn", "wal", "write", "writer")  # shown as 0 before health names them


class Metrics:
    """Metrics of one service; each attribute is a counter, gauge or histogram, and each name begins with
    `journey_bandit_`.

    The parts of the service count on them where things happen, from the event loop and from the writer thread alike:
    prometheus_client locks each value. The guides say which ones tell an operator what.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = self._counter("decisions", "Decisions recorded", ["stage", "arm", "holdout"])
        over = "Decisions over their user's contribution limit, not learned"
        self.over_limit = self._counter("decisions_over_limit", over, ["stage"])
        self.outcomes = self._counter("outcomes", "Outcomes reported", ["kind", "status"])
        self.late = self._counter("outcomes_late", "Outcomes recorded after maturity, not learned", [])
        self.events = self._counter("events", "Events taken in", ["event", "status"])
        self.events_refused = self._counter("events_refused", "Events that cannot be used, by field", ["field"])
        dropped = "Declared properties of events that were not kept"
        self.properties_dropped = self._counter("event_properties_dropped", dropped, ["event"])
        uncredited = "Reports found to be credited to no decision"
        self.uncredited = self._counter("uncredited", uncredited, ["stage", "kind", "reason"])
        self.clipped = self._counter("outcomes_clipped", "Rewards outside the declared range", ["stage"])
        self.unusable = self._counter("values_unusable", "Values left out: JSON cannot hold them", ["protocol"])
        self.webhooks = self._counter("webhooks", "Attempts to deliver a message", ["endpoint", "status"])
        self.letters = self._gauge("webhook_letters", "Messages that wait for another attempt", ["endpoint"])
        self.settlements = self._counter("settlements", "Decisions settled", ["stage", "why"])
        self.responses = self._counter("http_responses", "HTTP responses", ["method", "route", "status"])
        self.response_seconds = ResponseTimes()
        self.registry.register(self.response_seconds)
        self.connections = self._gauge("connections", "Connections that are held")
        closed = "Connections closed because an address, or all together, held more than are allowed"
        self.connections_closed = self._counter("connections_closed", closed, ["bound"])
        limited = "Requests refused because of a limit, by the key that was presented"
        self.limited = self._counter("limited", limited, ["key", "limit"])
        self.key_requests = self._counter("key_requests", "Requests within the limits, by key", ["key"])
        self.key_failures = self._counter("key_failures", "Requests that presented a key that is none", [])
        self.browser_refused = self._counter("browser_refused", "Requests of pages that were refused", ["reason"])
        self.ledger_errors = self._counter("ledger_errors", "Transactions that failed", ["what"])
        self.propensity = self._histogram("propensity", "Propensity of the drawn arm", _PROPENSITIES, ["stage"])
        self.commit_seconds = self._histogram("commit_seconds", "Durable group commit", _SECONDS)
        self.commit_rows = self._histogram("commit_rows", "Rows of a group commit", _ROWS)
        self.queue = self._gauge("queue_rows", "Rows waiting for the writer")
        self.version = self._gauge("policy_version", "Settlements the live policy learned", ["stage"])
        self._add_loss_accounts()
        self._add_retention()
        self._add_alarms()
        self._add_state()
        self.log_bytes = self._gauge("ledger_log_bytes", "Bytes of the ledger's write-ahead log")
        self.damaged = self._gauge("ledger_damages", "What the last check of the ledger's pages found wrong")
        doubt = "Seconds that the wall clock is ahead of elapsed time, negative if behind; 0 while it is believed"
        self.clock_doubt = self._gauge("clock_doubt_seconds", doubt)
        reading = "1 while open decisions are still read after a start: until then they teach nothing"
        self.reading = self._gauge("reading_open_decisions", reading)
        self.publish_seconds = self._histogram("publish_seconds", "Computation of policies", _SECONDS)
        self.refusals = self._counter("releases_refused", "Approved snapshots that were not what they said", ["stage"])
        self.release = self._gauge("release", "Number of the approved release that decides, 0 for none", ["stage"])
        self.registry_up = self._gauge("registry_up", "Whether the registry answered its sync last time")
        self.backlog = self._gauge("registry_backlog", "Runs that wait to be logged")
        self.dropped = self._gauge("registry_dropped", "Runs given up because too many waited")

    def _add_loss_accounts(self) -> None:
        share = "Share of the traffic that the loss account lets the learned policy decide"
        self.loss_share = self._gauge("loss_share", share, ["stage"])
        budget = "Money that learning may cost, of a month or of all traffic so far (0 before a day of traffic)"
        self.loss_budget = self._gauge("loss_budget", budget, ["stage"])
        spent = "Money that learning is estimated to have cost so far over no nudge, below 0 where it has earned"
        self.loss_spent = self._gauge("loss_spent", spent, ["stage"])
        most = "Upper end of the 90 % interval of loss_spent: what counts against budget less reserve"
        self.loss_spent_at_most = self._gauge("loss_spent_at_most", most, ["stage"])
        left = "Money that learning may still cost; at 0 and below, after the first day, the account is closed"
        self.loss_left = self._gauge("loss_left", left, ["stage"])

    def _add_alarms(self) -> None:
        self.alarms = self._gauge("drift_alarms", "Alarms of drift so far", ["stage"])
        told = "Alarms that a key reports more rewards than were usual, so far"
        self.reward_alarms = self._gauge("reward_alarms", told, ["stage"])
        waiting = "Alarms that a key reports more rewards than were usual, not acknowledged"
        self.reward_alarms_open = self._gauge("reward_alarms_open", waiting, ["stage"])

    def _add_state(self) -> None:
        self.ready = self._gauge("ready", "1 while health says that the service can decide and record")
        self.failing = self._gauge("failing", "1 while health names this part under `failing`", ["part"])
        for part in _PARTS:
            self.failing.labels(part).set(0)
        self.open_decisions = self._gauge("open_decisions", "Decisions that may still be rewarded", ["stage"])
        overdue = "Seconds by which the oldest decision of the last settlement was overdue; 0 if none was due"
        self.overdue = self._gauge("settlement_overdue_seconds", overdue)
        amount = "Money that a nudge may cost in the present period"
        self._budgets = set[tuple[str, str]]()  # those that have gauges
        self.budget_amount = self._gauge("budget_amount", amount, ["stage", "arm"])
        committed = "Money of the present period that a nudge has cost, or that its open decisions may cost"
        self.budget_committed = self._gauge("budget_committed", committed, ["stage", "arm"])
        self._parts = set(_PARTS)

    def _add_retention(self) -> None:
        erased = "People whose erasure began because nothing came of them for as long as the catalogue's retention"
        self.erased_at_rest = self._counter("people_erased_at_rest", erased, [])
        reached = "Unix time of the newest row that retention has looked at: it has looked at all older ones"
        self.retention_reached = self._gauge("retention_reached_seconds", reached, ["rows"])

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"journey_bandit_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"journey_bandit_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"journey_bandit_{name}", text, labels, buckets=buckets, registry=self.registry)

    def show_loss(self, stage: str, account: LossStatement) -> None:
        """Set the gauges of a stage's loss account; amounts are in the app's currency."""
        self.loss_share.labels(stage).set(account.share)
        self.loss_budget.labels(stage).set(account.budget)
        self.loss_spent.labels(stage).set(account.spent)
        self.loss_spent_at_most.labels(stage).set(account.spent_at_most)
        self.loss_left.labels(stage).set(account.left)

    def show_health(self, failing: Iterable[str], *, ready: bool) -> None:
        """Set what health says: whether the service is ready, and the parts that it names under `failing`. A part that
        was named once is 0 when it works again. Called for each exposition, in the event loop.
        """
        named = set(failing)
        self._parts |= named
        self.ready.set(ready)
        for part in self._parts:
            self.failing.labels(part).set(part in named)

    def show_budgets(self, stages: Mapping[str, Mapping[str, BudgetAccount]]) -> None:
        """Set the gauges of all budgets, by stage and nudge; amounts are in the app's currency. A budget that is not
        declared any more has no gauge. Called for each exposition, in the event loop.
        """
        found = {(stage, nudge): one for stage, accounts in stages.items() for nudge, one in accounts.items()}
        for place in self._budgets - found.keys():
            self.budget_amount.remove(*place)
            self.budget_committed.remove(*place)
        self._budgets = set(found)
        for place, account in found.items():
            self.budget_amount.labels(*place).set(account.amount / MICRO)
            self.budget_committed.labels(*place).set(account.committed / MICRO)

    def render(self) -> bytes:
        """Exposition of all metrics as UTF-8 text, Prometheus' format 0.0.4: the body of `GET /metrics`."""
        return generate_latest(self.registry)


class ResponseTimes(Collector):
    """Histogram `journey_bandit_response_seconds` of the time from a request's headers to the status of its answer, by
    route: it includes receiving the body, and waiting for a turn and for the disk. A collector of prometheus_client.

    It is counted in the event loop alone, where it is rendered too, so it needs no locks: an observation costs less
    than to increment a counter of prometheus_client.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}  # by route, a count for each bucket and for what is beyond, and the sum

    def observe(self, route: str, seconds: float) -> None:
        """Count one answer of a route. The route is a template, so that ids in paths make no new series."""
        row = self._rows.get(route)
        if row is None:
            row = self._rows[route] = [0.0] * (len(_SECONDS) + 2)
        row[bisect_left(_SECONDS, seconds)] += 1.0
        row[-1] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it is exposed: counts of buckets include those of smaller ones."""
        text = "From the headers of a request to the status of its answer"
        family = HistogramMetricFamily("journey_bandit_response_seconds", text, labels=["route"])
        for route, (*counts, total) in self._rows.items():
            below = itertools.accumulate(counts)
            ends = [*map(floatToGoString, _SECONDS), "+Inf"]
            family.add_metric([route], [*zip(ends, below, strict=True)], total)
        yield family


class CountResponses(ASGIMiddleware):
    """ASGI middleware that counts every HTTP response by method, route and status, errors included, and the time until
    it begins. The label is the route's template, not the path, so that ids in paths make no new series.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, metrics: Metrics):
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass a request on, and count the response when its status is sent; "(none)" is the route of a path that none
        has.
        """
        start = perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("path_template") or "(none)"
                self._metrics.responses.labels(str(scope.get("method")), route, str(message["status"])).inc()
                self._metrics.response_seconds.observe(route, perf_counter() - start)
            await send(message)

        await next_app(scope, receive, counted)
