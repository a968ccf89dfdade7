"""Corrections: what comes within a grace changes what was learned, to the bit, and nothing that was recorded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.learning.learner import Learner
from api.ledger import audit, statistics_store
from api.ledger.candidates import candidate
from api.metrics import Metrics
from api.stores.erasure_log import Erasure
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from api.webhooks.config import reward_matured
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import Unavailable
from bandit.records import Settlement
from journey_bandit.testing.store_builders import CATALOGUE, HOUR, START, reported
from journey_bandit.workflows.ledger_log import open_log

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

HOURS = 3600
LEARNERS = {
    "centred": 'loss = "50%"',
    "linear": 'policy = { name = "linear", prior_mean = 0.2 }',
    "hierarchical": 'policy = { name = "hierarchical", prior_mean = 0.2 }',
}


def with_grace(learner: str = "linear", grace: str = "3h") -> Catalogue:
    """The small catalogue, every stage of it with a grace, its stage `signup` under a policy."""
    declared = 'policy = { name = "linear", prior_mean = 0.2 }\nfloor = 0.02'
    assert declared in CATALOGUE
    text = CATALOGUE.replace(declared, LEARNERS[learner])
    for window in ("1h", "30m", "2h"):
        text = text.replace(f'window = "{window}"', f'window = "{window}", grace = "{grace}"')
    return parse(text)


@pytest.fixture(params=sorted(LEARNERS))
def shop(request: pytest.FixtureRequest) -> Catalogue:
    return with_grace(request.param)


def proved(store: Store) -> None:
    """What is kept is what the rows give, and the rows are those that were committed."""
    assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
    assert list(store.damages()) == []


def receipts(store: Store, salt: bytes) -> dict[int, list[str]]:
    """Decisions that cannot be computed again as they were recorded."""
    found = ((one.seq, audit.differences(store, one, salt)) for one in store.decisions())
    return {seq: parts for seq, parts in found if parts}


def sums(store: Store, catalogue: Catalogue, *, delays: bool = True) -> dict[str, Any]:
    """All that the ledger keeps of what was learned, as values that are equal only bit for bit."""
    return {
        name: ([e.digest() for e in one.epochs], one.nudges, one.delays.tobytes() if delays else None)
        for name, one in statistics_store.load(store, catalogue.stages).items()
    }


def counted(store: Store, catalogue: Catalogue) -> dict[str, Any]:
    """The same, counted from the rows."""
    return {
        one.stage: ([e.digest() for e in one.tally.epochs], one.tally.nudges, one.tally.delays.tobytes())
        for one in audit.rebuild(store, catalogue.stages)
    }


def at_once(store: Store, catalogue: Catalogue, but: bytes = b"") -> MemoryStore:
    """A ledger in which each decision was settled once, as it has settled in the end here; without those of one
    person.
    """
    other, specs = MemoryStore(), store.specs()
    audit.claim(other, catalogue, "salt")
    rows = [found for found in store.decisions() if found.decision.user != but]
    number = {found.seq: i for i, found in enumerate(rows, 1)}
    for found in rows:
        other.record([found.decision], [], found.decision.at, specs)
        for outcome in found.outcomes:
            other.record([], [outcome], outcome.received, specs)
    done = sorted((one.settlement for one in rows if one.settlement), key=lambda one: one.first)
    for one in done:
        other.settle([msgspec.structs.replace(one, seq=0, corrects=0, decision_seq=number[one.decision_seq])])
    return other


def in_time(store: Store, catalogue: Catalogue) -> MemoryStore:
    """A ledger of the same decisions in which all that counts was reported just before the windows ended, and that
    learned by itself.
    """
    other, specs = MemoryStore(), store.specs()
    audit.claim(other, catalogue, "salt")
    for found in store.decisions():
        other.record([found.decision], [], found.decision.at, specs)
        for outcome in (one for one in found.outcomes if not one.late):
            now = min(outcome.received, found.decision.expires - 1)
            other.record([], [msgspec.structs.replace(outcome, received=now, occurred=now)], now, specs)
    learner = Learner(other, catalogue, Metrics(), lambda _: None, now=START)
    while learner.step(START + 1000 * HOUR, 100):
        pass
    return other


def visits(desk: Any, later: Later, *, salt: int = 0, days: int = 3) -> None:
    """People come at two stages; some answer in time, some within the grace, some after it, some never."""
    n = 100 * salt
    for day in range(days):
        made = range(n + 1, n + 11)
        for n in made:
            stage = ("signup", "basket")[n % 2]
            desk.ask(n, stage, user=f"user {n % 4}", **({"age": 7 * n % 90} if stage == "signup" else {"items": n % 9}))
            if n % 3 == 0:
                desk.report(n, value=float(n % 2))
        later(1.5 * HOURS)
        desk.learn()
        for n in (n for n in made if n % 3 == 1):
            assert desk.report(n, value=float(n % 5 > 0)).corrects is True
            desk.learn()
            desk.ask(1000 + n, user=f"user {n % 4}", age=50)
        later((24 if day % 2 else 3) * HOURS)
        assert desk.report(made[0] + 1, value=1.0, name="too late").late
        desk.learn()
        n = made[-1]


def test_an_answer_within_the_grace_is_learned_as_if_it_had_come_in_time(
    store: Store, working: Working, later: Later
) -> None:
    shop = with_grace()
    with working(store, shop) as desk:
        desk.ask(1)
        later(1 * HOURS)
        before = desk.learn()["signup"]
        reply = desk.report(1)
        assert (reply.recorded, reply.duplicate, reply.late, reply.corrects) == (True, False, False, True)
        after = desk.learn()["signup"]
        assert before[0] + 1 == after[0]
        assert before[1] != after[1]
        assert desk.report(1).duplicate
        assert desk.report(1).corrects is True
        assert desk.learn()["signup"] == after
        receipt = desk.run(desk.service.receipt(desk.ask(1).decision_id))
        assert (receipt.settled.reward, receipt.settled.why, receipt.settled.seq) == (1.0, "reward", 2)
        assert [(one.reward, one.why, one.seq) for one in receipt.corrected] == [(0.0, "silence", 1)]
        assert [one.late for one in receipt.outcomes] == [False]
        assert receipts(store, desk.salt) == {}
    proved(store)
    with closing(in_time(store, shop)) as other:
        assert sums(store, shop, delays=False) == sums(other, shop, delays=False)


def test_an_answer_after_the_grace_is_late_as_ever(store: Store, working: Working, later: Later) -> None:
    shop = with_grace(grace="2h")
    with working(store, shop) as desk:
        desk.ask(1)
        later(3 * HOURS - 1e-6)
        assert desk.report(1, value=0.0, name="last").corrects is True  # a window of an hour, and two
        before = desk.learn()
        later(1e-6)
        reply = desk.report(1, name="late")
        assert (reply.late, reply.corrects) == (True, msgspec.UNSET)
        assert desk.learn() == before
    proved(store)


def test_corrections_end_in_the_bits_of_a_ledger_that_settled_once(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    """Sums of each drift epoch, counts of delays and what the price of a nudge follows from; and the receipts of all
    decisions hold, those made between a settlement and its correction too.
    """
    with working(store, shop) as desk:
        visits(desk, later)
        proved(store)
        assert receipts(store, desk.salt) == {}
        with closing(at_once(store, shop)) as other:
            assert sums(store, shop) == counted(other, shop)
        assert max(len(one.settlements) for one in store.decisions()) == 2


def test_the_belief_is_that_of_a_ledger_in_which_all_came_in_time(store: Store, working: Working, later: Later) -> None:
    shop = with_grace("linear")
    with working(store, shop) as desk:
        visits(desk, later)
    with closing(in_time(store, shop)) as other:
        assert sums(store, shop, delays=False) == sums(other, shop, delays=False)


def test_a_correction_is_learned_as_if_what_it_corrects_had_not_been(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    """Sites of a logistic policy depend on what is known: the wrong reward is no part of that."""
    with working(store, shop) as desk:
        desk.ask(1, age=40)
        later(1 * HOURS)
        desk.learn()
        desk.report(1)
        desk.learn()
    with closing(in_time(store, shop)) as other:
        assert sums(store, shop, delays=False) == sums(other, shop, delays=False)


def test_the_control_group_and_evaluations_read_what_was_corrected(
    working: Working, later: Later, tmp_path: Path
) -> None:
    shop, file = with_grace(), tmp_path / "ledger.db"
    with closing(SqliteStore(file)) as store:
        with working(store, shop) as desk:
            for n in range(1, 21):
                desk.ask(n, "basket", user=f"user {n}")
            later(1 * HOURS)
            desk.learn()
            for n in range(1, 21):
                desk.report(n)
            desk.learn()
        rewards = store.person_rewards(StatisticsKey("basket", 1), shop.stages["basket"].holdout)
        assert {one.holdout for one in rewards} == {False, True}
        assert [(one.decisions, one.reward) for one in rewards] == [(1, 1.0)] * 20
        proved(store)
    rounds = list(open_log(str(file), "basket").source()())
    assert np.concatenate([one.reward for one in rounds]).tolist() == [1.0] * 20


def test_a_candidate_learns_each_decision_once_as_it_was_corrected_by_then(
    store: Store, working: Working, later: Later
) -> None:
    shop = with_grace()
    other = msgspec.structs.replace(shop.stages["signup"], policy=parse(CATALOGUE).stages["basket"].policy)
    with working(store, shop) as desk:
        desk.ask(1)
        later(1 * HOURS)
        desk.learn()
        desk.report(1)
        desk.learn()
    before, after = (candidate(store, "signup", through, other).belief for through in (1, 2))
    assert (before.n.sum(), before.reward.sum()) == (1.0, 0.0)
    assert (after.n.sum(), after.reward.sum()) == (1.0, 1.0)
    assert open_seen(store) == (1, 1)


def open_seen(store: Store) -> tuple[int, int]:
    """Last decisions that snapshots of the first and of the second version learned from."""
    seen = [max(one.seq for one in store.decisions() if one.settled(version)) for version in (1, 2)]
    return seen[0], seen[1]


@pytest.mark.parametrize("forget", [True, False])
def test_a_person_whose_decisions_were_corrected_is_erased_to_the_bit(
    store: Store, working: Working, later: Later, shop: Catalogue, forget: bool
) -> None:
    """What is reported within the grace and not learned yet ends with the person."""
    with working(store, shop) as desk:
        visits(desk, later)
        gone = engine.user_hash(desk.salt, "user 1")
        apart, before, n = at_once(store, shop, gone), sums(store, shop), store.counts().settlements
        asked = Erasure(b"0123456789abcdef", frozenset([gone]), desk.clock(), forget)
        (last,) = [one for one in store.decisions() if one.decision.user == gone and one.settlement][-1:]
        told = reported(1, at=last.decision.expires, name="at last")
        told = msgspec.structs.replace(told, decision=last.decision.id)

        def reported_and_erased() -> None:
            (note,) = store.record([], [told], last.decision.expires, store.specs())[1]
            assert note.corrects
            done = desk.worker.learning.erase([asked], [], desk.clock())
            while done.left:
                done = desk.worker.learning.erase([], done.worked, desk.clock())
            if not done.ended:
                store.end_erasures(done.worked, desk.clock())

        desk.worker.run(reported_and_erased).result()
        desk.learn()
        assert sums(store, shop) == (counted(apart, shop) if forget else before)
        erased = sum(one.settlement is not None and one.settlement.why == "erased" for one in store.decisions())
        assert store.counts().settlements == n + erased
    proved(store)
    apart.close()


def test_what_was_settled_under_an_earlier_schema_stands(store: Store, working: Working, later: Later) -> None:
    shop = with_grace()
    raised = msgspec.structs.replace(shop.stages["signup"], schema=2)
    with working(store, shop) as desk:
        desk.ask(1)
        later(1 * HOURS)
        desk.learn()
    second = msgspec.structs.replace(shop, stages={**shop.stages, "signup": raised})
    with working(store, second) as desk:
        before = desk.learn()
        desk.report(1)
        assert desk.learn() == before
        assert store.matured(desk.clock(), 9, ["signup"]) == []
    (found,) = store.decisions()
    assert [one.why for one in found.settlements] == ["silence"]
    proved(store)


def test_a_budget_counts_what_a_corrected_reward_costs_also_after_a_restart(
    store: Store, working: Working, later: Later
) -> None:
    shop = parse(PAID)
    with working(store, shop) as desk:
        desk.ask(1, "cart")
        assert spent(desk) == 7_000_000  # reserved
        later(1 * HOURS)
        desk.learn()
        assert spent(desk) == 2_000_000
        desk.report(1)
        desk.learn()
        assert spent(desk) == 7_000_000
        desk.report(1, "retraction", name="refund")
        desk.learn()
        assert spent(desk) == 2_000_000
    with working(store, shop) as desk:
        assert spent(desk) == 2_000_000


def spent(desk: Any) -> int:
    """What the nudge's budget has committed, in millionths."""
    committed: int = desk.budgets.accounts("cart", desk.clock())["ten"].committed
    return committed


PAID = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "fixed", arm = "ten" }
features = {}
floor = 0.0
reward = { kind = "binary", window = "1h", value = 50.0, grace = "5h" }
[stages.cart.nudges.ten]
type = "discount"
format = "banner"
cost = 2.0
cost_when_rewarded = 5.0
budget = { amount = 100.0, per = "30d" }
"""


def test_a_webhook_tells_of_the_correction_under_an_id_of_its_own(store: Store, working: Working, later: Later) -> None:
    with working(store, with_grace()) as desk:
        desk.ask(1)
        later(1 * HOURS)
        desk.learn()
        desk.report(1)
        desk.learn()
    first, second = (
        msgspec.json.decode(reward_matured("shop", one.as_of(number)).body)
        for number, one in store.settlements_after(0, 9)
    )
    assert first["id"] != second["id"]
    assert (first["data"]["reward"], "corrects" in first["data"]) == (0.0, False)
    assert (second["data"]["reward"], second["data"]["corrects"]) == (1.0, 1)


class Cut(MemoryStore):
    """Fails now and then before or after it has written, as a process that is killed there."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts: Iterator[str] = iter(())

    def settle(
        self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = (), standing: Sequence[int] = ()
    ) -> dict[str, int]:
        where = next(self.cuts, "nowhere")
        if where == "before":
            raise Unavailable("cut")
        versions = super().settle(settlements, updates, standing)
        if where == "after":
            raise Unavailable("cut")
        return versions


REPORTS: list[tuple[int, str, float | None, str]] = [
    *((n, "reward", float(n % 3 == 0), "r") for n in range(1, 9)),
    *((n, "activation", None, "a") for n in range(9, 13)),
    *((n, "reward", 3.7 * n, "r") for n in range(9, 17)),
    (2, "reward", 0.0, "r2"),
    (3, "retraction", None, "all"),
    (10, "retraction", 0.2, "part"),
]  # fmt: skip
STAGE = {**dict.fromkeys(range(1, 5), "signup"), **dict.fromkeys(range(5, 9), "basket"),
         **dict.fromkeys(range(9, 13), "shown"), **dict.fromkeys(range(13, 17), "instant")}  # fmt: skip


def learn_through_cuts(store: Store, catalogue: Catalogue, now: int) -> None:
    """Learn all that matured, as a new process does after each cut."""
    while True:
        try:
            learner = Learner(store, catalogue, Metrics(), lambda _: None, now=now)
            while learner.step(now, 3):
                pass
        except Unavailable:
            continue
        return


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.permutations(REPORTS),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(REPORTS)), max_size=12),
    st.lists(st.integers(0, 40), max_size=8),
    st.lists(st.sampled_from(["before", "after", "nowhere"]), max_size=20),
)
def test_whatever_comes_when_and_how_often_the_end_is_that_of_a_ledger_in_which_it_came_in_time(
    decide: Any, outcome: Any, reports: Any, repeated: Any, pauses: Any, cuts: Any
) -> None:
    """Reports in any order, some before the windows end and some in the grace, repeated, the learner let in at any
    time and cut off before or after it has written.
    """
    shop, store = with_grace("linear", grace="30h"), Cut()
    audit.claim(store, shop, "salt")
    digests, specs = {name: stage.digest() for name, stage in shop.stages.items()}, store.specs()
    made = [
        msgspec.structs.replace(decide(n, stage, user=f"user {n % 5}"), stage_digest=digests[stage])
        for n, stage in STAGE.items()
    ]
    store.record(made, [], START, specs)
    store.cuts = iter(cuts)
    mixed = list(reports)
    for place, report in repeated:
        mixed.insert(place % (len(mixed) + 1), report)
    now = START
    for i, (n, kind, value, name) in enumerate(mixed):
        now += HOUR // 8 if i % 3 else HOUR // 3  # most windows end among them
        (note,) = store.record([], [outcome(n, kind, value, at=now, name=name)], now, specs)[1]
        assert note.status in ("recorded", "duplicate")
        assert not note.late
        if i in pauses:
            learn_through_cuts(store, shop, now)
    learn_through_cuts(store, shop, START + 100 * HOUR)
    proved(store)
    other = in_time(store, shop)
    assert sums(store, shop, delays=False) == sums(other, shop, delays=False)
    mine, theirs = ({d.seq: d.settlement for d in one.decisions() if d.settlement} for one in (store, other))
    assert len(mine) == len(STAGE)
    assert {n: (s.reward, s.why, s.learned) for n, s in mine.items()} == {
        n: (s.reward, s.why, s.learned) for n, s in theirs.items()
    }
