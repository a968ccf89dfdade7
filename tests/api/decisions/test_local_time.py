"""Quiet hours on the user's own clock, across the change to and from summer time; and moments that hold at once."""

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError

CATALOGUE = """
app = "shop"
currency = "EUR"
[limits.quiet]
from = "22:00"
to = "07:00"
timezone = "Asia/Tokyo"
[journey]
timezone = { event = "identified", property = "zone" }
[journey.events.identified]
names = ["identify"]
properties = { zone = "timezone", mail = "wants_mail" }
[journey.events.added]
names = ["Product Added"]
stage = "cart"
[stages.cart]
features = {}
reward = { kind = "binary", window = "1h" }
moments.now = { kind = "since", event = "added", after = "0s", until = "1h" }
[stages.cart.nudges.tip]
type = "help"
format = "banner"
"""
Serving = Callable[..., AbstractContextManager[Any]]


def at(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.fixture
def app(tmp_path: Path) -> str:
    (tmp_path / "shop.toml").write_text(CATALOGUE, encoding="utf-8")
    return str(tmp_path / "shop.toml")


def identify(client: Any, zone: object, n: int = 0) -> None:
    event = {"event_id": f"i{n}", "event": "identify", "user_id": "ann", "properties": {"timezone": zone}}
    assert client.post("/v1/events", json={"events": [event]}).json()["events"][0]["status"] == 200


@pytest.mark.parametrize(
    ("now", "zone", "rests"),
    [
        ("2025-10-25T04:59:00+00:00", "Europe/Berlin", True),  # 06:59, summer
        ("2025-10-25T05:00:00+00:00", "Europe/Berlin", False),  # 07:00, summer
        ("2025-10-26T05:30:00+00:00", "Europe/Berlin", True),  # 06:30, an hour later than the day before
        ("2025-10-26T06:00:00+00:00", "Europe/Berlin", False),  # 07:00, winter
        ("2026-03-28T20:59:00+00:00", "Europe/Berlin", False),  # 21:59, winter
        ("2026-03-28T21:00:00+00:00", "Europe/Berlin", True),  # 22:00, winter
        ("2026-03-29T19:59:00+00:00", "Europe/Berlin", False),  # 21:59, summer
        ("2026-03-29T20:00:00+00:00", "Europe/Berlin", True),  # 22:00, summer
        ("2026-03-29T01:30:00+00:00", "Europe/Berlin", True),  # 03:30: half past two does not exist
        ("2025-10-26T11:00:00+00:00", "America/New_York", False),  # 07:00
        ("2025-10-26T12:30:00+00:00", None, False),  # 21:30 in Tokyo, which is declared
        ("2025-10-26T13:30:00+00:00", None, True),  # 22:30 in Tokyo
    ],
)
def test_quiet_hours_are_those_of_the_users_clock(
    serving: Serving, hands: Any, app: str, now: str, zone: str | None, rests: bool
) -> None:
    hands.now = at(now) - 1
    with serving(app=app) as client:
        identify(client, zone)
        hands.now += 1
        got = client.ask("cart", "ann")
        assert ("tip" in got["excluded"]) == rests
        assert got["notes"] == []
        if rests:
            assert got["excluded"]["tip"] == f"quiet hours: 22:00 to 07:00 {zone or 'Asia/Tokyo'}"


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "CET+25", "Europe", True, 7, "x" * 60, "\0"])
def test_a_zone_that_does_not_exist_leaves_the_declared_one_and_is_noted(
    serving: Serving, hands: Any, app: str, zone: object
) -> None:
    hands.now = at("2025-10-26T13:30:00+00:00")  # 22:30 in Tokyo, 14:30 in Berlin
    with serving(app=app) as client:
        identify(client, zone)
        hands.now += 1
        got = client.ask("cart", "ann")
        assert got["excluded"]["tip"] == "quiet hours: 22:00 to 07:00 Asia/Tokyo"
        assert "time zone" in got["notes"][0]
        identify(client, "Europe/Berlin", 1)
        hands.now += 1
        assert (client.ask("cart", "ann")["excluded"], client.ask("cart", "ann")["notes"]) == ({}, [])


def test_a_moment_after_no_time_holds_at_once(serving: Serving, hands: Any, app: str) -> None:
    hands.now = at("2025-10-26T03:00:00+00:00")  # noon in Tokyo
    with serving(app=app) as client:
        event = {"event_id": "a", "event": "Product Added", "user_id": "ann"}
        assert client.post("/v1/events", json={"events": [event]}).status_code == 200
        got = client.post("/v1/decisions", json={"user_id": "ann"}).json()
        assert (got["stage"], got["moment"]) == ("cart", "now")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('event = "identified", property = "zone" }', 'event = "known", property = "zone" }', "journey.timezone"),
        ('property = "zone" }', 'property = "zoen" }', "journey.timezone"),
        ('{ event = "identified", property = "zone" }', '"Europe/Berlin"', "journey.timezone"),
        ('after = "0s"', 'after = "-1s"', "stages.cart.moments.now.after"),
        ('until = "1h"', 'until = "0s"', "stages.cart.moments.now.until"),
        ('window = "1h"', 'window = "0s"', "stages.cart.reward.window"),
    ],
)
def test_a_mistake_in_the_declaration_is_named(old: str, new: str, field: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(CATALOGUE.replace(old, new))
    assert field in [mistake.field for mistake in caught.value.mistakes]
