"""Person page: where a user is in the journey, what was decided for them, and which events came."""

from typing import NamedTuple

from api.console.decision_pages import DecisionList, SearchForm, search
from api.messages.events import JourneyReply
from api.people.records import ids_of
from api.stores.protocol import Store
from bandit.records import Event

EVENTS = 100
"""Events that the page shows, the newest."""


class PersonPage(NamedTuple):
    """Page of one person: the keyed hash of the id that was typed, how many ids are joined, the journey now, the newest
    decisions and events, and how many events there are.
    """

    person: str
    ids: int
    journey: JourneyReply
    decisions: DecisionList
    events: list[Event]
    in_all: int


def person_page(store: Store, user: bytes, journey: JourneyReply) -> PersonPage:
    """Page of the person with this id (keyed hash). Reads the ledger by the users' indexes; any thread."""
    ids = ids_of(store, user)
    events = sorted(store.events(ids), key=lambda event: (event.at, event.id), reverse=True)
    found = search(store, SearchForm(person=user.hex()))
    return PersonPage(user.hex(), len(ids), journey, found, events[:EVENTS], len(events))
