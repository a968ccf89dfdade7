"""What a person does in each example app: up to the moment, for the reward, and at the next visit."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from playwright.sync_api import expect

from tests.waiting import eventually


class Trial:
    """An example app in a browser: its own page in the frame, the panel beside it, and what the app's page sent."""

    def __init__(self, page: Any, url: str, name: str) -> None:
        self.page, self.url, self.name = page, url, name
        self.app = page.frame_locator("#app")
        self.nudge = self.app.locator("journey-nudge")
        self.decisions: list[Any] = []
        self.sent: list[str] = []
        page.on("request", lambda request: self.sent.append(request.url))
        page.on("response", self._answered)

    def _answered(self, response: Any) -> None:
        if response.url.endswith("/v1/browser/decisions"):
            self.decisions.append(response.json())

    def open(self, person: str = "") -> None:
        self.page.goto(f"{self.url}/try/{self.name}?person={person}", wait_until="load")
        expect(self.page.locator("#inside .guide")).to_be_attached()
        expect(self.app.locator("main h1").first).to_be_visible()  # left before, it says what it missed

    def hold_first(self, path: re.Pattern[str]) -> list[Any]:
        """The first request for that path, once there is one. It waits until it is continued."""
        held = list[Any]()
        self.page.route(path, lambda route: route.continue_() if held else held.append(route))
        return held

    def asked(self, path: str) -> bool:
        """Whether a page asked for that path."""
        return any(url.endswith(path) for url in self.sent)

    @property
    def made(self) -> list[Any]:
        """Decisions at a moment, in order."""
        return [one for one in self.decisions if one.get("moment")]

    def wait_made(self, count: int) -> list[Any]:
        """Those decisions, once there are so many."""
        assert eventually(lambda: self.page.wait_for_timeout(20) or len(self.made) >= count)
        return self.made

    def click(self, role: str, name: str) -> None:
        self.app.get_by_role(role, name=name, exact=True).first.click()

    def see(self, text: str) -> None:
        expect(self.app.get_by_text(text).first).to_be_visible()

    def known(self, text: str) -> None:
        """Wait until the panel shows that the step is done: the page's events have arrived. Capitals count, and name
        the begin of one step.
        """
        expect(self.page.locator(".guide .done", has_text=re.compile(re.escape(text)))).to_be_attached()

    def pass_time(self, step: str) -> None:
        """Press the button of a step of the panel's guide, once it is the next: earlier ones may still be shown."""
        self.page.locator(".guide .next", has_text=re.compile(re.escape(step))).locator(".go").click()


class ExampleStory(NamedTuple):
    """Story of one app. `before`, and then `moment`, after which its nudge is shown; `reward`: what earns it; `again`:
    what is done at the next visit, after which there is another decision.
    """

    person: str
    nudge: str
    before: Callable[[Trial], None]
    moment: Callable[[Trial], None]
    reward: Callable[[Trial], None]
    again: Callable[[Trial], None]


def _look(trial: Trial, name: str) -> None:
    """Look at a product until the page's question is answered: leaving before is a warning of the page that is left."""
    answered = len(trial.decisions)
    trial.click("link", "Nordhem")
    trial.see("Autumn, in six pieces")
    trial.app.get_by_role("link", name=name).first.click()
    expect(trial.app.get_by_role("heading", name=name)).to_be_visible()
    assert eventually(lambda: trial.page.wait_for_timeout(20) or len(trial.decisions) > answered)


def _look_twice(trial: Trial) -> None:
    _look(trial, "Aalto wool coat")
    trial.known("Open the wool coat")
    _look(trial, "Aalto wool coat")
    trial.known("Go back")


def _into_the_bag(trial: Trial) -> None:
    trial.nudge.locator("[part=action]").click()
    trial.see("Your bag")
    trial.see("Aalto wool coat")


def _parka(trial: Trial) -> None:
    for n in range(3):
        _look(trial, "Fjord rain parka")
        expect(trial.page.locator("details", has_text="Events")).to_contain_text(f"product_viewed{4 + n} ×")


def _choose_flight(trial: Trial) -> None:
    trial.click("button", "Search")
    trial.click("button", "Choose 06:40")
    trial.see("Your flight to Lisbon")
    trial.known("Choose the one")


def _hesitate(trial: Trial) -> None:
    trial.pass_time("Hesitate")


def _book(trial: Trial) -> None:
    trial.nudge.locator("[part=action]").click()
    trial.click("button", "Book now")
    trial.see("Booked for €174.80")


def _fly_again(trial: Trial) -> None:
    trial.pass_time("Come back")
    trial.click("button", "Choose 08:05")
    trial.see("Your flight to Athens")
    trial.known("Come back")
    trial.pass_time("Hesitate again")


def _choose_plan(trial: Trial) -> None:
    trial.click("button", "Choose monthly")
    expect(trial.app.get_by_role("heading", name="Payment")).to_be_visible()
    trial.known("Choose the monthly plan")


def _longer_trial(trial: Trial) -> None:
    trial.nudge.locator("[part=action]").click()
    trial.see("7 more days, free")
    trial.click("link", "Go on to the card")
    trial.see("Your card")
    trial.click("button", "Begin the longer trial")
    trial.see("Your first payment is on 8 January 2026")
    trial.pass_time("The trial ends")


def _plan_again(trial: Trial) -> None:
    trial.pass_time("Come back to the plans")
    trial.click("button", "Choose monthly")
    expect(trial.app.get_by_role("heading", name="Payment")).to_be_visible()
    trial.known("Come back to the plans")
    trial.pass_time("Hesitate again")


def _leave(trial: Trial) -> None:
    for n in (1, 2):
        trial.click("button", "Continue")
        trial.see(f"{n} of 6 steps done")
    trial.known("Do the first two steps")
    trial.click("link", "Finish later")
    trial.known("Finish later")
    trial.pass_time("Three hours later")
    trial.known("Three hours later")


def _return(trial: Trial) -> None:
    trial.click("link", "Open the app again")


def _verified(trial: Trial) -> None:
    trial.nudge.locator("[part=dismiss]").click()
    for name in ("Take the photo", "Take the selfie", "Continue", "Open the account"):
        trial.click("button", name)
    trial.see("Welcome to Lumen")


def _somebody_else(trial: Trial) -> None:
    trial.page.get_by_role("button", name="Somebody else").click()
    trial.see("Open your account")
    _leave(trial)
    _return(trial)


def _buy(trial: Trial) -> None:
    trial.click("link", "Shop")
    trial.see("The ember shop")
    trial.click("button", "€4.99")
    trial.see("Yours: 500 embers.")
    trial.known("Buy the spark pack")
    trial.pass_time("Eight days later")
    trial.known("Eight days later")
    trial.click("link", "Play")


def _play(trial: Trial) -> None:
    trial.click("button", "Play a round")


def _buy_with_bonus(trial: Trial) -> None:
    trial.nudge.locator("[part=action]").click()
    trial.click("button", "€4.99")
    trial.see("Yours: 550 embers, the bonus included.")


def _play_again(trial: Trial) -> None:
    trial.pass_time("Come back a week later")
    _play(trial)


STORIES = {
    "fashion": ExampleStory(
        "cleo", "low_stock", _look_twice, lambda t: _look(t, "Aalto wool coat"), _into_the_bag, _parka
    ),
    "travel": ExampleStory("dev", "discount_5", _choose_flight, _hesitate, _book, _fly_again),
    "subscription": ExampleStory("eva", "trial_plus_7", _choose_plan, _hesitate, _longer_trial, _plan_again),
    "fintech": ExampleStory("ada", "walkthrough", _leave, _return, _verified, _somebody_else),
    "gaming": ExampleStory("finn", "bonus_10", _buy, _play, _buy_with_bonus, _play_again),
}
