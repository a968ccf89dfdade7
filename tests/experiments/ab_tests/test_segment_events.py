"""A/B tests from Segment's messages: who counts where, from when on, and what cannot be used."""

import codecs
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from bandit.errors import InvalidRequest
from experiments.ab_tests.experiment_table import ExperimentTable
from experiments.ab_tests.segment_events import read_events


def track(event: str, second: int, user: str = "", anonymous: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "userId": user or None,
        "anonymousId": anonymous or None,
        "messageId": f"ajs-{event}-{second}-{user}{anonymous}",
        "timestamp": f"2026-05-01T12:00:{second:02d}.000Z",
        "properties": properties,
    }


def viewed(variation: str, second: int, user: str = "", anonymous: str = "", name: str = "Checkout") -> dict[str, Any]:
    said = {"experiment_id": "exp-1", "experiment_name": name, "variation_id": "v", "variation_name": variation}
    return track("Experiment Viewed", second, user, anonymous, **said)


MESSAGES = [
    track("Order Completed", 1, user="u1", revenue=90.0),  # before the view: does not count
    viewed("b", 5, anonymous="a2"),
    viewed("a", 2, user="u1"),
    {"type": "identify", "userId": "u2", "anonymousId": "a2"},
    track("Order Completed", 7, user="u2", revenue="12.50"),  # who a2 is
    track("Order Completed", 8, user="u2", revenue=7.5),
    viewed("b", 9, user="u1"),  # counts in its first
    viewed("a", 3, user="u3"),
    track("Order Completed", 9, user="u9", revenue=5.0),  # who never viewed it
    viewed("b", 4, user="u4", name="Banner"),
]


def read(
    tmp_path: Path, messages: list[dict[str, Any]], *outcomes: str, experiment: str = "Checkout"
) -> ExperimentTable:
    file = tmp_path / "events.json"
    file.write_text("\n".join(map(json.dumps, messages)), encoding="utf-8")
    return read_events(file, experiment, outcomes)


def test_people_count_in_their_first_view_and_from_then_on(tmp_path: Path) -> None:
    found = read(tmp_path, MESSAGES, "Order Completed", "Order Completed.revenue")
    assert found.arms == ("a", "b")
    assert found.arm.tolist() == [0, 0, 1]  # u1, u3, u2 in the order of their views
    bought, revenue = found.outcomes
    assert (bought.binary, bought.total.tolist()) == (True, [0.0, 0.0, 1.0])
    assert (revenue.binary, revenue.total.tolist()) == (False, [0.0, 0.0, 20.0])
    assert found.notes == ("1 more variations were viewed later by people who count in their first",)


def test_a_variation_that_nobody_saw_first_is_no_arm(tmp_path: Path) -> None:
    """One later view of a third variation does not make the test one of three arms, one of them empty."""
    found = read(tmp_path, [*MESSAGES, viewed("c", 20, user="u1")], "Order Completed")
    assert found.arms == ("a", "b")
    assert found.notes == ("2 more variations were viewed later by people who count in their first",)


def test_only_what_is_read_is_held(tmp_path: Path) -> None:
    """Of 1,000 messages with 20,000 characters that no outcome asks for, 20 MB, less than 4 MB are ever held."""
    noise = [track(event, i % 60, user="u3", text=f"{i}" * 5000, revenue=1.0) | {"messageId": f"{event}{i}"}
             for i in range(1000, 1500) for event in ("Page Read", "Order Completed")]  # fmt: skip
    file = tmp_path / "events.json"
    file.write_text("\n".join(map(json.dumps, [*MESSAGES, *noise])), encoding="utf-8")
    del noise
    tracemalloc.start()
    try:
        found = read_events(file, "Checkout", ["Order Completed.revenue"])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.outcomes[0].total[1] > 400.0
    assert most < 4e6


def test_ids_batches_repeats_and_encodings_change_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, MESSAGES, "Order Completed.revenue", experiment="exp-1")._replace(notes=(), name="")
    lines = "\r\n".join(map(json.dumps, MESSAGES))
    repeated = "\n".join(json.dumps({"batch": MESSAGES, "sentAt": "2026-05-01T12:00:00Z"}) for _ in range(2))
    for data in (
        codecs.BOM_UTF8 + lines.encode(),
        lines.encode("utf-16"),
        gzip.compress(lines.encode()),
        repeated.encode(),
    ):
        file = tmp_path / "events.json.gz"
        file.write_bytes(data)
        found = read_events(file, "exp-1", ["Order Completed.revenue"])
        assert found.arm.tolist() == plain.arm.tolist()
        assert found.outcomes[0].total.tolist() == plain.outcomes[0].total.tolist()
    assert "left out: 9 messages that are there twice, by their messageId" in found.notes


@pytest.mark.parametrize(
    ("more", "outcome", "said"),
    [
        ({}, "Order Complete", "has no event 'Order Complete' → one of Experiment Viewed, Order Completed"),
        ({}, "Order Completed.total", "events.json:5: Order Completed.total: there is no total"),
        ({"timestamp": "yesterday"}, "Order Completed", "events.json:11: timestamp: 'yesterday' is not a time"),
        ({"timestamp": None}, "Order Completed", "events.json:11: timestamp: there is no timestamp"),
        ({"userId": None}, "Order Completed", "events.json:11: userId: neither userId nor anonymousId"),
        (
            {"properties": {"experiment_name": "Checkout"}},
            "Order Completed",
            "events.json:11: variation_name: there is no",
        ),
    ],
)
def test_what_cannot_be_used_is_named(more: dict[str, Any], outcome: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as error:
        read(tmp_path, [*MESSAGES, viewed("a", 30, user="u7") | more], outcome)
    assert said in str(error.value)


def test_an_experiment_that_nobody_viewed_names_those_that_were(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="one of Banner, Checkout"):
        read(tmp_path, MESSAGES, "Order Completed", experiment="checkout page")
    with pytest.raises(InvalidRequest, match="give messages with Experiment Viewed"):
        read(tmp_path, MESSAGES[:1], "Order Completed")
    (tmp_path / "cut.json").write_text('{"type": "track"\n')
    with pytest.raises(InvalidRequest, match=r"cut.json:1: not JSON"):
        read_events(tmp_path / "cut.json", "Checkout", ["x"])
