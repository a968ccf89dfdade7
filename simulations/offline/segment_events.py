"""Segment events: what the same people do in the app, with names and fields of the Segment e-commerce specification
(v2).

A visit gives the event of its stage, repeated for each time the person went back where the stage has that signal;
`Promotion Viewed` when a nudge was shown, with its arm as `promotion_id`; `Coupon Applied` and the event of the reward
when that comes. Ids are functions of (run, user, time, number), so that sending again is a repetition.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bandit.catalogue.model import Catalogue
from simulations.offline.runner import StepDecisions
from simulations.scenario import Scenario

_VISIT = {
    "onboarding": "Signup Step Viewed",
    "browsing": "Product Viewed",
    "cart": "Cart Viewed",
    "checkout": "Checkout Started",
    "retention": "Product List Viewed",
}
_ORDER = "Order Completed"
_REWARD = {
    "onboarding": "Signed Up",
    "browsing": "Product Added",
    "cart": _ORDER,
    "checkout": _ORDER,
    "retention": _ORDER,
}
_ONWARD = {"fintech": "Checkout Started", "subscription": "Checkout Started"}  # a cart that leads to the next stage


class SegmentFeed(NamedTuple):
    """Feed that turns decisions into Segment events of one app. `run` is the prefix of user and message ids, so that
    two runs do not mix.
    """

    catalogue: Catalogue
    scenario: Scenario
    run: str

    def events(self, rows: StepDecisions) -> Iterator[dict[str, Any]]:
        """The `track` calls of these decisions, in the order of users, each user's in order of time. Revenue is in the
        app's currency, timestamps are ISO 8601 in UTC.
        """
        stage = self.catalogue.stage(rows.stage)
        names = list(stage.features)
        tracks = self.scenario.hesitation.get("back_tracks") if rows.stage == self.scenario.stage else None
        span = float(stage.features[tracks].max or 0) - float(stage.features[tracks].min or 0) if tracks else 0.0
        for i, user in enumerate(rows.user.tolist()):
            arm, at = stage.arms[int(rows.arm[i])], int(rows.at[i])
            back = round(float(np.expm1(rows.position[i, names.index(tracks)] * np.log1p(span)))) if tracks else 0
            for again in range(1 + back):
                yield self._track(user, at - (1 + back - again) * 1_000_000, _VISIT[rows.stage], {"step": rows.stage})
            if arm != "none":
                nudge = stage.nudges[arm]
                shown = {"promotion_id": arm, "name": nudge.type, "creative": nudge.format, "position": rows.stage}
                yield self._track(user, at, "Promotion Viewed", shown)
            if np.isfinite(rows.delay[i]):
                yield from self._rewarded(user, at + round(float(rows.delay[i]) * 1e6), rows.stage, arm)

    def _rewarded(self, user: int, at: int, stage: str, arm: str) -> Iterator[dict[str, Any]]:
        if arm in self.scenario.coupons.arms and stage == self.scenario.stage:
            yield self._track(user, at - 1, "Coupon Applied", {"coupon_id": arm, "order_id": f"{user}-{at}"})
        name = _ONWARD.get(self.catalogue.app, _REWARD[stage]) if stage == "cart" else _REWARD[stage]
        properties: dict[str, Any] = {"step": stage}
        if name == _ORDER:
            value = self.catalogue.stage(stage).reward.value
            properties |= {"order_id": f"{user}-{at}", "revenue": value, "currency": self.catalogue.currency}
        yield self._track(user, at, name, properties)

    def _track(self, user: int, at: int, event: str, properties: dict[str, Any]) -> dict[str, Any]:
        stamp = datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000)
        return {
            "type": "track",
            "userId": f"{self.run}-{user}",
            "event": event,
            "properties": properties,
            "timestamp": stamp.isoformat(timespec="milliseconds"),
            "messageId": f"{self.run}-{user}-{at}-{event.replace(' ', '')}",
        }


class EventFile:
    """A decision sink that writes Segment events to a file, one JSON object a line. What the file held is replaced."""

    def __init__(self, feed: SegmentFeed, file: Path):
        self._feed = feed
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("w", encoding="utf-8")

    def write(self, rows: StepDecisions) -> None:
        """Append the events of these decisions to the file."""
        self._out.writelines(json.dumps(event) + "\n" for event in self._feed.events(rows))

    def close(self) -> None:
        """Flush and close the file. Nothing may be written afterwards."""
        self._out.close()
