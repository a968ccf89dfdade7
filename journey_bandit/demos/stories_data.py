"""Story data: five people, one for each shipped app, what they did, what is asked for them, and what they do then."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class StoryEvent(NamedTuple):
    """Event of a story, `ago` seconds before now; `by`: the client that reports it (segment or another intake)."""

    ago: float
    event: str
    properties: Mapping[str, Any] = _NOTHING
    by: str = "segment"


class Story(NamedTuple):
    """Story of one person in one app. `before`: events up to the moment; `evidence` and `context` come with the
    question; `then`: what follows the decision.
    """

    app: str
    person: str
    plot: str
    stage: str
    before: tuple[StoryEvent, ...]
    then: tuple[StoryEvent, ...]
    evidence: Mapping[str, Any] = _NOTHING
    context: Mapping[str, Any] = _NOTHING


_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_SHOE = {"product_id": "shoe-42", "price": "89.90", "category": "shoes"}
_FLIGHT = {"route": "BER-LIS", "price": 184, "days_to_departure": 21}

STORIES = (
    Story(
        "fintech",
        "Ada",
        "begins her identity check, leaves, and comes back three hours later",
        "onboarding",
        (
            StoryEvent(3 * _HOUR, "Onboarding Step Completed", {"step": "address"}),
            StoryEvent(2.9 * _HOUR, "Document Rejected", {}, "native"),
            StoryEvent(5, "page", {"path": "/onboarding"}),
        ),
        (StoryEvent(0, "Identity Verified", {}, "native"),),
        context={"device": "mobile", "has_document_ready": True},
    ),
    Story(
        "fashion",
        "Ben",
        "views one pair of shoes three times; 40 pairs are left",
        "browsing",
        tuple(StoryEvent(ago * _MINUTE, "Product Viewed", _SHOE) for ago in (6, 4, 1)),
        (),
        evidence={"stock": 40},
    ),
    Story(
        "fashion",
        "Cleo",
        "views the same shoes three times; three pairs are left, looked up just now",
        "browsing",
        tuple(StoryEvent(ago * _MINUTE, "Viewed Product", _SHOE) for ago in (5, 3, 1)),
        (StoryEvent(0, "Product Added", _SHOE),),
        evidence={"stock": 3},
    ),
    Story(
        "travel",
        "Dev",
        "searches a route three times, chooses a flight and stops; he books, and cancels",
        "cart",
        (
            *(StoryEvent(ago * _MINUTE, "Flight Searched", _FLIGHT) for ago in (40, 37, 35)),
            StoryEvent(25 * _MINUTE, "Flight Chosen", _FLIGHT),
        ),
        (
            StoryEvent(0, "Order Completed", {"order_id": "T-1"}),
            StoryEvent(0, "Order Refunded", {"order_id": "T-1"}, "native"),
        ),
        evidence={"deadline": "2099-12-31T18:00:00Z"},
    ),
    Story(
        "subscription",
        "Eva",
        "has been on the payment page for 45 seconds",
        "checkout",
        (
            StoryEvent(9 * _MINUTE, "Lesson Completed", {"topic": "music"}),
            StoryEvent(2 * _MINUTE, "Plan Chosen", {"price": 12}),
            StoryEvent(45, "Checkout Started", {"price": 12, "annual": False}),
        ),
        (StoryEvent(0, "Subscription Started", {"order_id": "S-1"}),),
    ),
    Story(
        "gaming",
        "Finn",
        "bought something eight days ago, and still plays",
        "retention",
        (
            StoryEvent(8 * _DAY, "Order Completed", {"order_id": "G-1", "revenue": "4.99"}),
            StoryEvent(2 * _HOUR, "Round Played", {"level": 17}),
            StoryEvent(_HOUR, "Round Played", {"level": 18}),
        ),
        (StoryEvent(0, "Order Completed", {"order_id": "G-2", "revenue": 9.99}),),
    ),
)
