"""Metrics that are computed when they are read: times of answers, health, what is open and overdue, budgets."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from api.learning.learner import Learner
from api.metrics import _SECONDS, Metrics, ResponseTimes
from api.stores.memory.store import MemoryStore
from bandit.budgets import MICRO, BudgetAccount
from bandit.catalogue.model import Catalogue

Serving = Callable[..., AbstractContextManager[Any]]

BUDGET = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "fixed", arm = "ten" }
reward = { kind = "binary", window = "1h", value = 50.0 }
features = {}
[stages.cart.nudges.ten]
type = "discount"
format = "banner"
cost = 2.5
budget = { amount = 100.0, per = "24h" }
"""


def value(client: Any, series: str) -> float:
    """Of one series, as it is exposed."""
    (line,) = (line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{series} "))
    return float(line.split()[-1])


def test_times_of_answers_are_exposed_as_the_histogram_of_the_library_exposes_them() -> None:
    """Line by line, also for times on the edges of buckets, and beyond the last."""
    ours, registry = ResponseTimes(), CollectorRegistry()
    text = "From the headers of a request to the status of its answer"
    theirs = Histogram("journey_bandit_response_seconds", text, ["route"], buckets=_SECONDS, registry=registry)
    drawn = np.random.default_rng(1).exponential(0.1, 300).tolist()
    for i, seconds in enumerate([*drawn, *_SECONDS, 0.0, 9.5]):
        ours.observe(f"/{i % 3}", seconds)
        theirs.labels(f"/{i % 3}").observe(seconds)
    alone = CollectorRegistry()
    alone.register(ours)
    said, wanted = generate_latest(alone).decode(), generate_latest(registry).decode()
    timed = [line for line in wanted.splitlines() if "_created" not in line]
    assert said.splitlines() == timed
    assert len(timed) > 40


@pytest.mark.parametrize("hot", [True, False])
def test_each_answer_is_timed_once_by_its_route(serving: Serving, hot: bool) -> None:
    """A request with an Origin takes the way that is not hot. Refusals are timed too."""
    headers = {} if hot else {"Origin": "https://shop.example"}
    with serving(cors="https://shop.example") as client:
        for body in ({"stage": "signup", "user_id": "u"}, {"stage": "nowhere", "user_id": "u"}):
            client.post("/v1/decisions", json=body, headers=headers)
        route = 'journey_bandit_response_seconds_count{route="/v1/decisions"}'
        assert value(client, route) == 2.0
        assert value(client, route.replace("_count", "_sum")) > 0.0
        client.get("/v1/users/somebody/journey")
        assert "somebody" not in client.get("/metrics").text


def test_what_health_names_is_in_the_metrics_until_it_works_again(serving: Serving) -> None:
    told = [
        f'journey_bandit_failing{{part="{part}"}}' for part in ("write", "writer", "learn", "ledger", "wal", "clock")
    ]
    store = MemoryStore()
    with serving(store) as client:
        assert [value(client, one) for one in ("journey_bandit_ready", *told)] == [1.0, *[0.0] * 6]
        store.log_bytes = lambda: 10**9  # type: ignore[method-assign]
        assert value(client, 'journey_bandit_failing{part="wal"}') == 1.0
        assert (value(client, "journey_bandit_ready"), client.get("/health/ready").status_code) == (1.0, 200)
        store.log_bytes = lambda: 0  # type: ignore[method-assign]
        assert value(client, 'journey_bandit_failing{part="wal"}') == 0.0


def test_a_part_that_was_named_once_is_zero_when_it_works_again_and_what_stops_is_not_ready() -> None:
    metrics = Metrics()
    get = metrics.registry.get_sample_value
    for failing, ready in (({"release cart"}, True), ({"write", "release cart"}, False), (set[str](), True)):
        metrics.show_health(failing, ready=ready)
        assert get("journey_bandit_ready") == ready
        for part in ("write", "release cart", "learn"):
            assert get("journey_bandit_failing", {"part": part}) == (part in failing)


def test_open_decisions_are_counted_by_stage_until_they_settle(serving: Serving, later: Callable[[float], int]) -> None:
    one = 'journey_bandit_open_decisions{stage="signup"}'
    with serving() as client:
        for n in range(3):
            client.ask(user=f"u{n}")
        client.learned()
        assert value(client, one) == 3.0
        assert value(client, one.replace("signup", "basket")) == 0.0
        later(3600.0 + 90.0)
        client.learned()
        assert value(client, one) == 0.0


def test_the_last_settlement_was_overdue_by_as_long_as_nobody_settled(
    working: Callable[..., AbstractContextManager[Any]], catalogue: Catalogue, later: Callable[[float], int]
) -> None:
    """The stage's window is an hour."""
    store, metrics = MemoryStore(), Metrics()
    with working(store) as desk:
        desk.ask(1)
        later(60.0)
        desk.ask(2)
    learner = Learner(store, catalogue, metrics, lambda _: None, now=later(0.0))
    found = []
    for seconds in (3500.0, 100.0, 0.0, 20.0, 0.0):  # the first is due at 3600, the second at 3660
        learner.step(later(seconds), 10)
        found.append(metrics.registry.get_sample_value("journey_bandit_settlement_overdue_seconds"))
    learner.close()
    assert found == [0.0, 60.0, 0.0, 0.0, 0.0]


def test_budgets_are_told_as_policies_tell_them(
    serving: Serving, tmp_path: Path, later: Callable[[float], int]
) -> None:
    catalogue = tmp_path / "budget.toml"
    catalogue.write_text(BUDGET, encoding="utf-8")
    with serving(app=str(catalogue)) as client:
        for n in range(3):
            client.ask("cart", user=f"u{n}")
        (budget,) = client.learned()["cart"]["budgets"]
        labels = '{arm="ten",stage="cart"}'
        assert value(client, f"journey_bandit_budget_amount{labels}") == budget["amount"] == 100.0
        assert value(client, f"journey_bandit_budget_committed{labels}") == budget["committed"] == 7.5
        later(86_400.0)
        assert value(client, f"journey_bandit_budget_committed{labels}") == 0.0, "a new period, with no request"


def test_a_budget_that_is_not_declared_any_more_has_no_gauge() -> None:
    metrics = Metrics()
    account = BudgetAccount(amount=100 * MICRO, period=1, number=1, committed=5 * MICRO)
    metrics.show_budgets({"cart": {"ten": account, "five": account}})
    metrics.show_budgets({"cart": {"ten": account}})
    found = metrics.registry.get_sample_value
    assert found("journey_bandit_budget_committed", {"stage": "cart", "arm": "ten"}) == 5.0
    assert found("journey_bandit_budget_amount", {"stage": "cart", "arm": "five"}) is None
    assert found("journey_bandit_budget_committed", {"stage": "cart", "arm": "five"}) is None
