"""Clock of a service whose machine's clock is set: nothing matures early, nothing is refused, and a restart goes on."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from api import clocks
from api.app import create_app
from api.clocks import LASTING, STEP, ClockMark, SteadyClock
from api.ledger.clock_marks import ClockMarks, clock_doubts, kept_mark
from api.metrics import Metrics
from api.settings import Settings
from api.stores.memory.store import MemoryStore

NOW = 1_760_000_000_000_000
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000

ONE_A_DAY = """
app = "shop"
currency = "EUR"

[stages.cart]
policy = { name = "uniform" }
reward = { kind = "binary", window = "1h", value = 10.0 }
[stages.cart.features]
[stages.cart.nudges.tip]
type = "help"
format = "tooltip"
limits = { per_day = 1 }
payload = { title = "Tip" }
"""


class Machine:
    """A machine whose time passes when told to, and whose wall clock anybody sets."""

    def __init__(self) -> None:
        self.elapsed, self.off, self.boot = 5 * HOUR, NOW, "first"

    def wall(self) -> int:
        return self.off + self.elapsed

    def passes(self, by: int) -> None:
        self.elapsed += by

    def sets(self, by: int) -> None:
        self.off += by

    def starts_again(self, boot: str, after: int) -> None:
        """Another start of the machine, `after` µs later."""
        self.off += self.elapsed + after
        self.elapsed, self.boot = 0, boot

    def clock(self, mark: ClockMark | None = None, longest: int = DAY) -> SteadyClock:
        made = SteadyClock(mark, wall=self.wall, elapsed=lambda: self.elapsed, boot=self.boot)
        made.longest = longest
        return made


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_the_wall_clock_is_followed_while_it_is_set_by_little(machine: Machine) -> None:
    clock = machine.clock()
    for by in (3 * SECOND, -2 * SECOND, 9 * SECOND):
        before = clock()
        machine.sets(by)
        assert before <= clock()  # never back: it stands still until the wall clock is there
        machine.passes(20 * SECOND)
        assert clock() == clock.settling() == machine.wall()
        assert clock.doubt is None


@pytest.mark.parametrize("by", [DAY, -DAY, 3650 * DAY, -40 * DAY, STEP + 1, -STEP - 1])
def test_a_step_is_not_believed_and_forgotten_when_it_is_taken_back(machine: Machine, by: int) -> None:
    clock = machine.clock()
    machine.sets(by)
    machine.passes(LASTING // 2)
    assert clock() == clock.settling() == machine.wall() - by
    doubt = clock.doubt
    assert doubt is not None
    assert (doubt.by, doubt.believed) == (by, clock() + LASTING)
    machine.sets(-by)
    machine.passes(SECOND)
    assert clock() == clock.settling() == machine.wall()
    assert clock.doubt is None


def test_a_step_that_lasts_is_believed_but_nothing_matures_by_it_while_a_window_may_be_open(machine: Machine) -> None:
    clock = machine.clock(longest=2 * DAY)
    machine.sets(DAY)
    assert clock.doubt is not None
    machine.passes(LASTING)
    assert clock() == machine.wall()
    assert not clock_doubts(clock)
    assert clock.settling() == machine.wall() - DAY
    machine.passes(2 * DAY - 1)
    assert clock.settling() == machine.wall() - DAY
    machine.passes(1)
    assert clock.settling() == machine.wall()


def test_a_step_back_that_lasts_is_believed(machine: Machine) -> None:
    clock = machine.clock()
    machine.sets(-DAY)
    assert clock() == machine.wall() + DAY
    machine.passes(LASTING)
    assert clock() == clock.settling() == machine.wall()


def test_another_step_is_doubted_anew(machine: Machine) -> None:
    clock = machine.clock()
    machine.sets(DAY)
    assert clock.doubt is not None
    machine.passes(LASTING - 1)
    machine.sets(HOUR)
    assert clock() == machine.wall() - DAY - HOUR
    machine.passes(LASTING - 1)
    assert clock() == machine.wall() - DAY - HOUR
    machine.passes(1)
    assert clock() == machine.wall()


STEPS = st.lists(
    st.tuples(st.integers(SECOND, 3 * HOUR), st.sampled_from([0, 0, DAY, -DAY, HOUR, 40 * DAY, -7 * HOUR]))
)


@given(steps=STEPS, restarts=st.booleans())
def test_no_window_is_shorter_than_declared_however_the_clock_is_set(
    steps: list[tuple[int, int]], restarts: bool
) -> None:
    """Decisions are made at every step; what a clock says has passed since each, for settling, never exceeds what has.
    Windows are as long as the longest, so that this must hold up to there.
    """
    machine = Machine()
    clock, made = machine.clock(longest=2 * DAY), list[tuple[int, int]]()
    for passes, by in steps:
        made.append((clock(), machine.elapsed))
        machine.sets(by)
        clock()
        machine.passes(passes)
        if restarts:
            clock = machine.clock(clock.mark(), longest=2 * DAY)
        seen = clock.settling()
        for at, when in made:
            assert min(seen - at, 2 * DAY) <= machine.elapsed - when


def test_a_restart_goes_on_by_elapsed_time_whatever_the_clock_was_set_to_meanwhile(machine: Machine) -> None:
    mark = machine.clock().mark()
    machine.passes(10 * SECOND)
    machine.sets(DAY)
    clock = machine.clock(mark)
    assert clock() == clock.settling() == machine.wall() - DAY
    assert clock.doubt is not None


def test_after_another_start_of_the_machine_the_clock_is_followed_and_settling_waits(machine: Machine) -> None:
    mark = machine.clock().mark()
    machine.starts_again("second", after=5 * DAY)
    clock = machine.clock(mark)
    assert (clock(), clock.settling()) == (machine.wall(), machine.wall() - 5 * DAY)
    machine.passes(LASTING - 1)
    assert clock.settling() == machine.wall() - 5 * DAY
    machine.passes(1)
    assert clock.settling() == machine.wall()


def test_a_machine_that_starts_in_the_past_goes_on_from_the_mark(machine: Machine) -> None:
    mark = machine.clock().mark()
    machine.starts_again("second", after=-400 * DAY)
    clock = machine.clock(mark)
    assert clock() == clock.settling() == mark.at
    machine.sets(400 * DAY + HOUR)  # the time comes from the network
    machine.passes(SECOND)
    assert clock() == mark.at + SECOND
    machine.passes(LASTING)
    assert clock() == machine.wall()


def test_what_is_held_is_held_after_another_start_of_the_machine(machine: Machine) -> None:
    clock = machine.clock()
    machine.sets(DAY)
    assert clock.doubt is not None
    machine.passes(LASTING)
    mark = machine.clock(clock.mark()).mark()
    assert [step.by for step in mark.held] == [DAY]
    machine.starts_again("second", after=SECOND)
    clock = machine.clock(mark)
    assert clock.settling() == machine.wall() - DAY
    machine.passes(DAY)
    assert clock.settling() == machine.wall()


def test_marks_are_kept_once_a_minute_and_read_back(machine: Machine) -> None:
    store, clock, metrics = MemoryStore(), machine.clock(), Metrics()
    marks = ClockMarks(store, clock, metrics)
    assert kept_mark(store) is None
    marks.keep()
    first = kept_mark(store)
    assert first == clock.mark()
    machine.passes(59 * SECOND)
    marks.keep()
    assert kept_mark(store) == first
    machine.passes(SECOND)
    marks.keep()
    assert kept_mark(store) == clock.mark() != first
    machine.sets(-DAY)
    marks.keep()
    assert b"journey_bandit_clock_doubt_seconds -86400.0" in metrics.render()
    store.set_meta({"clock": '{"boot": 1}'})
    assert kept_mark(store) is None


def test_health_says_which_way_and_until_when(machine: Machine) -> None:
    clock = machine.clock()
    assert clock_doubts(clock) == clock_doubts(clocks.wall) == {}
    machine.sets(DAY)
    assert clock_doubts(clock)["clock"] == (
        "the wall clock is 86,400 s ahead of the time that has elapsed; the service goes on by elapsed time, and "
        "believes the wall clock at 2025-10-09T14:53:20Z if it still differs → set the machine's clock right"
    )
    machine.sets(-2 * DAY)
    assert "86,400 s behind the time" in clock_doubts(clock)["clock"]


def test_what_a_client_tells_is_believed_unless_the_clock_is_in_doubt(machine: Machine) -> None:
    clock = machine.clock()
    now = clock()
    assert clocks.told(clock, now - HOUR, now) == now - HOUR
    machine.sets(DAY)
    assert clocks.told(clock, now + DAY, now) == now
    assert clocks.told(clock, now - DAY, now) == now
    assert clocks.told(clock, now - 3 * DAY, now) == now - 3 * DAY
    assert clocks.told(lambda: now, now + DAY, now) == now + DAY


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_a_service_whose_clock_is_set_by_a_day_settles_nothing_early_refuses_nothing_and_keeps_caps(
    machine: Machine, by: int, tmp_path: Path
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(ONE_A_DAY, encoding="utf-8")
    clock = machine.clock(longest=HOUR)
    app = create_app(Settings(app=str(file), salt="salt", dev=True), clock=clock, store=MemoryStore())
    with TestClient(app) as client:

        def ask(user: str) -> Any:
            return client.post("/v1/decisions", json={"stage": "cart", "user_id": user}).json()

        def settled() -> int:
            (policy,) = client.get("/v1/policies", params={"wait": True}).json()["policies"]
            return int(policy["version"])

        def tell(decision: Any, **more: Any) -> Any:
            sent = {"decision_id": decision["decision_id"], "kind": "reward", **more}
            reply = client.post("/v1/outcomes", json=sent)
            assert reply.status_code == 200, reply.text
            return reply.json()

        made = [ask(f"u{i}") for i in range(20)]
        shown = [i for i, one in enumerate(made) if one["nudge"]["id"] != "none"]
        machine.passes(60 * SECOND)
        machine.sets(by)
        assert "clock" in client.get("/health/ready").json()["failing"]
        assert settled() == 0
        assert all(ask(f"u{i}")["nudge"]["id"] == "none" for i in shown)  # once a day
        late = [ask(f"v{i}") for i in range(3)]
        right = dt.datetime.fromtimestamp((machine.wall() - by) / 1e6, dt.UTC).isoformat()
        wrong = dt.datetime.fromtimestamp(machine.wall() / 1e6, dt.UTC).isoformat()
        told = [tell(made[0]), tell(late[0]), tell(late[1], occurred_at=right), tell(late[2], occurred_at=wrong)]
        assert not any(one["late"] for one in told)
        machine.passes(HOUR - 61 * SECOND)
        assert settled() == 0
        machine.passes(2 * SECOND)
        assert settled() >= 20
        machine.passes(2 * HOUR)
        assert "clock" not in client.get("/health/ready").json()["failing"]
        assert clock() == machine.wall()
        tell(ask("w"))
        tell(made[1])
