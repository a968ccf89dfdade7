"""Specifications of the example apps: what each is called, and the story that its page tells."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

SALT = "try"
"""Salt of the services, fixed: the same people are in the control group on every start."""


class AppStory(NamedTuple):
    """Story of one person in an example app: the `nudge` of the app's `stage` that they are to see.

    Which nudge a decision draws is the hash of the decision's id. For the person of a story ids are looked for that
    draw this nudge; `context` is roughly what is known of them then. Everybody else is drawn as chance has it.
    """

    label: str
    person: str
    nudge: str
    context: Mapping[str, Any] = MappingProxyType({})


class ExampleApp(NamedTuple):
    """Example app: its shipped catalogue's `name`, the stage that its stories are of, and the first page that opens."""

    name: str
    title: str
    about: str
    stage: str
    opens: str
    stories: tuple[AppStory, ...]


APPS = (
    ExampleApp(
        "fashion",
        "Nordhem",
        "A clothes shop. Look at one coat three times, and see how many are truly left.",
        "browsing",
        "/fashion/",
        (
            AppStory(
                "Cleo",
                "cleo",
                "low_stock",
                {
                    "views_of_product": 3,
                    "minutes_browsing": 0,
                    "price": 189.0,
                    "returning": False,
                    "wishlist": False,
                    "category": "coats",
                },
            ),
        ),
    ),
    ExampleApp(
        "travel",
        "Passerine",
        "Flights. Choose one, hesitate, and see an offer that truly ends in an hour.",
        "cart",
        "/travel/",
        (
            AppStory(
                "Dev",
                "dev",
                "discount_5",
                {"price": 184.0, "days_to_departure": 21.0, "searches_24h": 1, "minutes_idle": 10, "returning": False},
            ),
        ),
    ),
    ExampleApp(
        "subscription",
        "Halfnote",
        "Music lessons. Hesitate at the payment, and get a longer trial. Nothing is shown where a card is entered.",
        "checkout",
        "/subscription/",
        (AppStory("Eva", "eva", "trial_plus_7", {"plan_price": 12.0}),),
    ),
    ExampleApp(
        "fintech",
        "Lumen Bank",
        "Opening an account. Leave in the middle, return hours later, and be walked through the rest.",
        "onboarding",
        "/fintech/",
        (AppStory("Ada", "ada", "walkthrough", {"steps_done": 2}),),
    ),
    ExampleApp(
        "gaming",
        "Emberfall",
        "A game with a shop. Buy something, and be rewarded a week later.",
        "retention",
        "/gaming/",
        (
            AppStory("Finn: bonus", "finn", "bonus_10"),
            AppStory("Gus: scratch card", "gus", "gift"),
            AppStory("Hana: streak", "hana", "streak"),
        ),
    ),
)

BY_NAME = {app.name: app for app in APPS}
