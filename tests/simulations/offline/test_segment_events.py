"""Events: names of the specification, one user's in order of time, and the arms that were shown."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from bandit.catalogue.loading import parse, read_shipped
from simulations import scenario
from simulations.offline import runner
from simulations.offline.runner import SimulationCell, StepDecisions
from simulations.offline.segment_events import EventFile, SegmentFeed

SPEC = {  # Segment, e-commerce events v2 and B2B SaaS, as far as used
    *("Product Viewed", "Product List Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed"),
    *("Promotion Viewed", "Coupon Applied", "Signed Up", "Signup Step Viewed"),
}


class Both:
    """A file of events, and the decisions they came from."""

    def __init__(self, file: EventFile):
        self.file = file
        self.rows: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        self.rows.append(rows)
        self.file.write(rows)


def played(app: str, file: Path, **changes: Any) -> tuple[list[dict[str, Any]], list[StepDecisions]]:
    given = {"policy": "uniform", "users": 400, "days": 15, "seed": 2, "journey": True, **changes}
    cell = SimulationCell(scenario=scenario.load(app), **given)
    sink = Both(EventFile(SegmentFeed(parse(read_shipped(app)), cell.scenario, "run-2"), file))
    runner.run(cell, sink)
    sink.file.close()
    return [json.loads(line) for line in file.read_text().splitlines()], sink.rows


@pytest.mark.parametrize("app", scenario.names())
def test_people_of_every_app_speak_the_specification(app: str, tmp_path: Path) -> None:
    events, rows = played(app, tmp_path / "deep" / "events.jsonl")
    assert {event["event"] for event in events} <= SPEC
    assert all(event["type"] == "track" and event["timestamp"].endswith("+00:00") for event in events)
    ids = Counter(event["messageId"] for event in events)
    assert max(ids.values()) == 1
    shown = Counter(e["properties"]["promotion_id"] for e in events if e["event"] == "Promotion Viewed")
    catalogue, wanted = parse(read_shipped(app)), Counter[str]()
    for part in rows:
        arms = catalogue.stage(part.stage).arms
        wanted.update(arms[a] for a in part.arm if a > 0)
    assert shown == wanted


def test_a_purchase_comes_after_its_visit_and_says_what_it_is_worth(tmp_path: Path) -> None:
    events, rows = played("travel", tmp_path / "e.jsonl")
    orders = [e for e in events if e["event"] == "Order Completed"]
    assert len(orders) == sum(
        (~(r.delay != r.delay)).sum() for r in rows if r.stage in ("cart", "checkout", "retention")
    )
    assert all(o["properties"]["revenue"] == 50.0 and o["properties"]["currency"] == "EUR" for o in orders)
    times = defaultdict(list)
    for event in events:
        if event["event"] in ("Cart Viewed", "Checkout Started", "Product List Viewed"):
            times[event["userId"]].append(event["timestamp"])
    assert all(min(times[o["userId"]]) < o["timestamp"] for o in orders)


def test_the_same_run_sends_the_same_messages(tmp_path: Path) -> None:
    first, _ = played("fashion", tmp_path / "1.jsonl")
    again, _ = played("fashion", tmp_path / "2.jsonl")
    assert first == again


def test_hesitation_is_heard(tmp_path: Path) -> None:
    """Where back-tracks are a signal, the page is viewed again for each of them."""
    events, rows = played("fashion", tmp_path / "e.jsonl", journey=False)
    views = sum(e["event"] == "Product Viewed" for e in events)
    visits = sum(len(r.user) for r in rows)
    assert 1.8 * visits < views < 4.0 * visits
