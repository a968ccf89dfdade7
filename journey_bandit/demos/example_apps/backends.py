"""Backends of the example apps: who the user is and what is true, signed; and what only a backend may report.

Each does what the backend of a real app does, over HTTP: `docs/guides/browser.md` says why. Only the time is that of
the service's driven clock.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import jwt

from journey_bandit.demos.example_apps.app_specs import AppStory
from journey_bandit.demos.example_apps.services import AppService
from journey_bandit.demos.example_apps.shop_rules import Fact, State, rules_of
from journey_bandit.demos.example_apps.story_people import StoryPeople

_TOKEN_SECONDS, _EVIDENCE_SECONDS = 3600, 120

STEP = 1
"""Seconds of the service's time that each page and each action takes: what happens at one instant has no order."""


class AppBackend:
    """Backend of one example app. Belongs to one event loop."""

    def __init__(self, service: AppService):
        self.service = service
        self.http = httpx.AsyncClient(base_url=service.url, timeout=30.0)
        self.people = StoryPeople(service.app, service.catalogue)
        self._rules = rules_of(service.app.name)
        self._states = dict[str, State]()
        self._due = list[tuple[str, Fact]]()

    async def now(self) -> int:
        """Time of the service, µs since 1970."""
        return int((await self.http.get("/v1/clock")).raise_for_status().json()["now"])

    def state(self, person: str) -> State:
        """What the backend keeps of a person."""
        return self._states.setdefault(person, {"user_id": person})

    def newcomer(self, story: AppStory | None) -> str:
        """Id of a new person: of a story, or anybody."""
        return self.people.person(story) if story else f"visitor-{uuid.uuid4().hex[:8]}"

    async def token(self, person: str) -> str:
        """Token that says who the user is, for an hour."""
        return self._signed(person, await self.now(), _TOKEN_SECONDS)

    async def evidence(self, person: str, about: str) -> str:
        """What is true now, signed, for two minutes; "" if there is nothing to claim."""
        now = await self.now()
        found = self._rules.evidence(self.state(person), about, now)
        return self._signed(person, now, _EVIDENCE_SECONDS, evidence=found) if found else ""

    async def act(self, person: str, action: str, sent: Mapping[str, Any]) -> State:
        """State of a person after an action of their page, which is reported to the service. `sent["decision"]`: the
        decision whose nudge was taken; what it offers is read from the ledger, not from the page.
        """
        now = await self.advance(STEP)
        for fact in self._rules.act(self.state(person), action, sent, await self._offer(sent), now):
            if fact.at > now:
                self._due.append((person, fact))
            else:
                await self._report(person, fact)
        return self.state(person)

    async def advance(self, seconds: int) -> int:
        """Let the service's time pass, and do what is due until then. The time then."""
        sent = {"microseconds": seconds * 1_000_000}
        now = int((await self.http.post("/v1/clock", json=sent)).raise_for_status().json()["now"])
        due = [(person, fact) for person, fact in self._due if fact.at <= now]
        self._due = [(person, fact) for person, fact in self._due if fact.at > now]
        for person, fact in due:
            await self._report(person, fact)
        return now

    async def _offer(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        if not sent.get("decision"):
            return {}
        receipt = (await self.http.get(f"/v1/decisions/{uuid.UUID(sent['decision'])}")).raise_for_status().json()
        return dict(receipt["nudge"]["payload"])

    async def _report(self, person: str, fact: Fact) -> None:
        event = {"event_id": str(uuid.uuid4()), "event": fact.event, "user_id": person}
        sent = {"events": [event | {"properties": dict(fact.properties)}]}
        (reply,) = (await self.http.post("/v1/events", json=sent)).raise_for_status().json()["events"]
        assert reply["status"] == 200, reply  # noqa: S101 - the rules report events of their own catalogue

    def _signed(self, person: str, now: int, seconds: int, **more: Any) -> str:
        key, begins = self.service.key, now // 1_000_000
        claims = {"sub": person, "aud": key.id, "iat": begins, "exp": begins + seconds, **more}
        return jwt.encode(claims, key.secret, algorithm="HS256")
