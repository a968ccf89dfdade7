"""Budgets: never overspent, whoever asks at the same time, converts late, retries or restarts."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.messages.decisions import DecisionRequest, OutcomeRequest
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError, Overloaded

HOUR = 3_600_000_000
APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "fixed", arm = "ten" }}
floor = {floor}
reward = {{ kind = "binary", window = "{window}h", value = 50.0 }}
features = {{}}
[stages.cart.nudges.ten]
type = "discount"
format = "banner"
cost = {cost}
cost_when_rewarded = {rewarded}
budget = {{ amount = {amount}, per = "{per}h" }}
"""

Working = Callable[..., AbstractContextManager[Any]]


def app(
    amount: float, cost: float = 0.0, rewarded: float = 5.0, per: float = 24, window: float = 1, floor: float = 0.0
) -> Catalogue:
    text = APP.format(amount=amount, cost=cost, rewarded=rewarded, per=per, window=window, floor=floor)
    return parse(text)


def cost_by_period(store: Store, catalogue: Catalogue, period: int) -> Counter[int]:
    """What each period's decisions cost, from the ledger alone; an open decision as if it were rewarded."""
    nudge = catalogue.stages["cart"].nudges["ten"]
    spent: Counter[int] = Counter()
    for found in store.decisions("cart"):
        if found.decision.arm == "ten":
            reward = found.settlement.reward if found.settlement else 1.0
            spent[found.decision.at // period] += round(1e6 * (nudge.cost + nudge.cost_when_rewarded * reward))
    return spent


async def crowd(desk: Any, rng: np.random.Generator, clients: int, each: int) -> None:
    """Clients who ask at the same time, some twice with one id, and report what they bought."""

    async def client(seed: int) -> None:
        own = np.random.default_rng(seed)
        for _ in range(each):
            decision_id = uuid.UUID(bytes=own.bytes(16), version=4)
            request = DecisionRequest(stage="cart", user_id="u", context={}, decision_id=decision_id)
            for _ in range(1 + (own.random() < 0.3)):
                reply = await desk.service.decide(request)
            if own.random() < 0.4:
                await desk.service.report(OutcomeRequest(decision_id=reply.decision_id, kind="reward"))

    await asyncio.gather(*(client(int(seed)) for seed in rng.integers(0, 2**60, clients)))


def overspent(desk_of: Working, clock: Any, n: int, clients: int, each: int) -> tuple[int, float]:
    """Of n random budgets: how many were overspent in any period, and the mean share spent of an amount."""
    over, used = 0, []
    for i in range(n):
        rng = np.random.default_rng([17, i])
        catalogue = app(
            amount=float(rng.uniform(6, 400)),
            cost=float(rng.choice([0.0, 0.3])),
            rewarded=float(rng.uniform(0.1, 5)),
            per=float(rng.choice([1, 6, 24])),
            window=float(rng.choice([0.5, 2])),
            floor=0.1,
        )
        store = MemoryStore()
        with desk_of(store, catalogue) as desk:
            for _ in range(3):
                desk.run(crowd(desk, rng, clients, each))
                clock.now += int(rng.uniform(0.2, 2) * HOUR)
                desk.learn()
        budget = catalogue.stages["cart"].nudges["ten"].budget
        assert budget is not None
        spent = cost_by_period(store, catalogue, round(budget.seconds * 1e6))
        over += any(micro > budget.amount * 1e6 for micro in spent.values())
        used += [micro / (budget.amount * 1e6) for micro in spent.values()]
    return over, float(np.mean(used))


def test_fifty_concurrent_clients_never_overspend(working: Working, clock: Any) -> None:
    over, used = overspent(working, clock, n=15, clients=50, each=2)
    assert over == 0
    assert used > 0.1, "a budget that is hardly used proves nothing"


@pytest.mark.slow
def test_a_thousand_budgets_are_never_overspent(working: Working, clock: Any) -> None:
    over, used = overspent(working, clock, n=1000, clients=50, each=2)
    print(f"1,000 budgets, 50 concurrent clients: overspent {over}, mean share spent {used:.2f}")
    assert over == 0
    assert used > 0.1


def test_an_empty_budget_excludes_the_nudge_with_its_reason_until_the_next_period(working: Working, clock: Any) -> None:
    store, catalogue = MemoryStore(), app(amount=10.0)
    clock.now -= clock.now % (24 * HOUR)
    clock.now += 23 * HOUR
    with working(store, catalogue) as desk:
        replies = [desk.ask(n, stage="cart") for n in range(1, 5)]
        assert [r.nudge.id for r in replies] == ["ten", "ten", "none", "none"]
        assert replies[2].excluded == {"ten": "budget: 10 of 10 is spent or reserved in this period"}
        assert replies[2].propensities == {"none": 1.0}
        clock.now += HOUR
        assert desk.ask(9, stage="cart").nudge.id == "ten"


def test_what_was_reserved_and_not_spent_is_free_again(working: Working, clock: Any) -> None:
    store, catalogue = MemoryStore(), app(amount=10.0, per=240)
    clock.now += 239 * HOUR - clock.now % (240 * HOUR)
    clock.now -= 3 * HOUR
    with working(store, catalogue) as desk:
        assert [desk.ask(n, stage="cart").nudge.id for n in (1, 2, 3)] == ["ten", "ten", "none"]
        desk.report(1)
        clock.now += 2 * HOUR
        desk.learn()
        assert [desk.ask(n, stage="cart").nudge.id for n in (4, 5)] == ["ten", "none"], "one of two was bought"


def test_a_restart_counts_what_the_ledger_holds(working: Working, clock: Any, tmp_path: Path) -> None:
    catalogue = app(amount=10.0, per=240)
    clock.now += 236 * HOUR - clock.now % (240 * HOUR)
    store = SqliteStore(tmp_path / "ledger.db")
    with working(store, catalogue) as desk:
        desk.ask(1, stage="cart")
        desk.report(1)
        desk.ask(2, stage="cart")
        clock.now += 2 * HOUR
        desk.learn()
        desk.ask(3, stage="cart")
    store.close()
    store = SqliteStore(tmp_path / "ledger.db")
    with working(store, catalogue) as desk:
        assert desk.run(desk.service.policies()).policies[0].budgets[0].committed == 10.0
        assert desk.ask(4, stage="cart").nudge.id == "none"
    store.close()


def test_a_retry_reserves_once_and_a_refusal_nothing(working: Working, clock: Any) -> None:
    catalogue = app(amount=10.0, per=240)
    clock.now += 236 * HOUR - clock.now % (240 * HOUR)
    with working(MemoryStore(), catalogue) as desk:
        assert [desk.ask(1, stage="cart").nudge.id for _ in range(5)] == ["ten"] * 5

        committed = desk.run(desk.service.policies()).policies[0].budgets[0].committed
        assert committed == 5.0
        desk.worker.stop()
        with pytest.raises(Overloaded):
            desk.ask(2, stage="cart")
        assert desk.budgets.accounts("cart", clock.now)["ten"].committed == 5_000_000


def test_pacing_spreads_a_budget_over_its_period(working: Working, clock: Any) -> None:
    """Asked every minute of a day: at no time is more committed than the clock allows and a tenth."""
    catalogue = app(amount=100.0, cost=1.0, rewarded=0.0, per=24, window=0.1)
    clock.now += 24 * HOUR - clock.now % (24 * HOUR)
    shown = []
    with working(MemoryStore(), catalogue) as desk:
        for minute in range(0, 1440, 4):
            shown.append(desk.ask(minute + 1, stage="cart").nudge.id == "ten")
            clock.now += HOUR // 15
    committed = np.cumsum(shown)
    assert committed[-1] == 100
    over = np.arange(0, 1440, 4) / 1440
    assert np.all(committed <= np.maximum(1, 100 * (over + 0.1)) + 1e-9)
    assert np.all(committed >= 100 * over - 1)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"amount": 3.0}, "stages.cart.nudges.ten.budget.amount", "showing it once can cost 5"),
        ({"amount": 10.0, "rewarded": 0.0}, "stages.cart.nudges.ten.budget", "costs nothing"),
        ({"amount": 10.0, "per": -3}, "stages.cart.nudges.ten.budget.per", "not a duration"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(change: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(CatalogueError) as error:
        app(**change)
    assert any(m.field == field and problem in m.problem for m in error.value.mistakes), error.value
