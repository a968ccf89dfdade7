"""Rules of the example apps' backends: what is true in each shop, and what its backend reports of what people do.

Times are µs since 1970. A person's state is a table of plain values, which the person's own pages may read.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from api.times import time_of

State = dict[str, Any]

_HOUR, _DAY = 3_600_000_000, 86_400_000_000


class Fact(NamedTuple):
    """Fact that a backend reports to the service: an event of the catalogue, at once or at the time `at`."""

    event: str
    properties: Mapping[str, Any] = {}
    at: int = 0


class ShopRules(Protocol):
    """Rules of one shop."""

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:
        """What is true for claims in a page about a product: {} if there is nothing to claim."""
        ...

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:
        """What is to be reported of an action of a page, which also changes the state. `offer`: payload of the nudge
        that the person was given, as the service's ledger has it; {} for none. Raises KeyError for what cannot be done.
        """
        ...


def goods(app: str) -> dict[str, dict[str, Any]]:
    """Goods of an app by id: the file that its page reads, too."""
    text = files("journey_bandit.demos.example_apps").joinpath("pages", app, "goods.json").read_text(encoding="utf-8")
    return {one["id"]: one for one in json.loads(text)}


def _order(state: State) -> str:
    state["orders"] = state.get("orders", 0) + 1
    return f"{state['user_id']}-{state['orders']}"


class ClothesRules:
    """Rules of the clothes shop: its stock, counted at each question, and the bag."""

    def __init__(self) -> None:
        self._goods = goods("fashion")
        self.left = {f"{name}/{size}": n for name, one in self._goods.items() for size, n in one["stock"].items()}

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:  # noqa: ARG002
        """Units left of a product in a size: "coat-aalto/M"."""
        return {"stock": self.left[about]}

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:  # noqa: ARG002
        """`add` to the bag, which takes a unit from the stock; `order` what is in it."""
        bag = state.setdefault("bag", [])
        if action == "order":
            facts = [Fact("Order Completed", {"order_id": _order(state)})] if bag else []
            bag.clear()
            return facts
        one, size = self._goods[{"add": sent["product"]}[action]], sent["size"]
        if not self.left[f"{one['id']}/{size}"]:
            raise KeyError("sold out")
        self.left[f"{one['id']}/{size}"] -= 1
        bag.append(one["id"])
        value = sum(self._goods[name]["price"] for name in bag)
        return [Fact("Product Added", {"product_id": one["id"], "cart_value": value})]


class FlightRules:
    """Rules of the flights: an offer to a person ends an hour after it was first named, and is honoured until then."""

    def __init__(self) -> None:
        self._goods = goods("travel")

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:  # noqa: ARG002
        """When the offer on the flight that was chosen ends; nothing once it is over."""
        if "flight" not in state:
            return {}
        ends = state.setdefault("offer_ends", now + _HOUR)
        return {"deadline": time_of(ends).isoformat()} if now < ends else {}

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:
        """`choose` a flight, or `book` the one that was chosen, at the price of the offer while it holds."""
        if action == "choose":
            one = self._goods[sent["product"]]
            state.update(flight=one["id"], price=one["price"], paid=None)
            state.pop("offer_ends", None)
            about = {"route": one["route"], "price": one["price"], "days_to_departure": one["days_to_departure"]}
            return [Fact("Flight Chosen", about)]
        percent = offer.get("percent", 0) if now < state.get("offer_ends", 0) else 0
        one = self._goods[{"book": state.pop("flight")}[action]]
        state["paid"] = round(one["price"] * (1 - percent / 100), 2)
        return [Fact("Order Completed", {"order_id": _order(state)})]


class LessonRules:
    """Rules of the lessons: whoever was offered a longer trial pays at its end, everybody else at once."""

    def __init__(self) -> None:
        self._goods = goods("subscription")

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: no nudge of the payment page claims stock or a deadline."""
        return {}

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:
        """`choose` a plan, open the `checkout`, `extend` the trial as offered, `pay`."""
        if action == "choose":
            state.update(plan=self._goods[sent["product"]]["id"], trial_days=0, pays_at=None)
        plan = self._goods[state["plan"]]
        about = {"price": plan["price"], "annual": plan["annual"]}
        if action == "extend":
            state["trial_days"] = offer["days"] if "days" in offer else state["trial_days"]
            return []
        if action == "pay":
            at = now + state["trial_days"] * _DAY
            state["pays_at"] = time_of(at).isoformat()
            return [Fact("Subscription Started", {"order_id": _order(state)}, at)]
        return [Fact({"choose": "Plan Chosen", "checkout": "Checkout Started"}[action], about)]


class AccountRules:
    """Rules of the bank: six steps to an account, which are kept when somebody leaves."""

    STEPS = ("name", "contact", "document", "selfie", "address", "confirm")

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: no nudge of the identity check claims stock or a deadline."""
        return {}

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:  # noqa: ARG002
        """Keep a `step` that is done; after the last one the identity is verified."""
        done = state.setdefault("steps", [])
        step = {"step": sent["step"]}[action]
        if step != self.STEPS[len(done)]:
            raise KeyError(step)
        done.append(step)
        return [Fact("Identity Verified")] if len(done) == len(self.STEPS) else []


class GameRules:
    """Rules of the game's shop: points for each purchase, more of them if a bonus was offered."""

    def __init__(self) -> None:
        self._goods = goods("gaming")

    def evidence(self, state: State, about: str, now: int) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: no nudge after a purchase claims stock or a deadline."""
        return {}

    def act(self, state: State, action: str, sent: Mapping[str, Any], offer: Mapping[str, Any], now: int) -> list[Fact]:  # noqa: ARG002
        """`buy` a pack."""
        pack = self._goods[{"buy": sent["product"]}[action]]
        earned = round(pack["points"] * (1 + offer.get("percent", 0) / 100))
        state.update(points=state.get("points", 0) + earned, earned=earned)
        if item := offer.get("item"):
            state.setdefault("items", []).append(item)
        return [Fact("Order Completed", {"order_id": _order(state), "revenue": pack["price"]})]


def rules_of(app: str) -> ShopRules:
    """Rules of an example app, with everything in stock."""
    made: dict[str, type[ShopRules]] = {
        "fashion": ClothesRules,
        "travel": FlightRules,
        "subscription": LessonRules,
        "fintech": AccountRules,
        "gaming": GameRules,
    }
    return made[app]()
