"""Both Python clients behind one face, on a network, a clock and a chance that tests make."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import pytest

from journey_bandit_client import AsyncJourneyClient, JourneyClient

URL = "http://nudges.test"
DECIDED: Mapping[str, Any] = {
    "stage": "cart",
    "nudge": {"id": "discount", "type": "discount", "format": "banner", "payload": {"percent": 10}},
    "propensity": 0.25,
    "propensities": {"none": 0.75, "discount": 0.25},
    "excluded": {"few_left": "no evidence"},
    "policy": "centred",
    "policy_version": 7,
    "holdout": False,
    "expires_at": "2026-01-02T00:00:00Z",
    "notes": [],
    "duplicate": False,
}


@dataclass
class Network:
    """What is sent and paused, at which time; `replies` are given one after the other, the last one again and again: a
    status, headers and a body, or an error. Each takes `takes` seconds.
    """

    replies: Sequence[tuple[int, Mapping[str, str], Any] | Exception] = ()
    takes: float = 0.0
    now: float = 1000.0
    sent: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    drawn: float = 0.5

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        self.now += self.takes
        reply = self.replies[min(len(self.sent), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        status, headers, body = reply
        if callable(body):
            body = body(msgspec.json.decode(request.content))
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return httpx.Response(status, headers=headers, content=content)

    def bodies(self) -> list[Any]:
        return [msgspec.json.decode(request.content) for request in self.sent]

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def options(self) -> dict[str, Any]:
        transport = httpx.MockTransport(self.answer)
        return {"transport": transport, "clock": lambda: self.now, "draw": lambda: self.drawn}


class Face:
    """A client, synchronous or not: its methods are called alike."""

    def __init__(self, network: Network, *, waits: bool, **options: Any):
        self._network, self._waits, self._options = network, waits, options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        options = self._network.options() | self._options

        async def awaited(*given: Any, **named: Any) -> Any:
            async with AsyncJourneyClient(URL, sleep=self._network.sleep_async, **options) as client:
                return await getattr(client, name)(*given, **named)

        def called(*given: Any, **named: Any) -> Any:
            if self._waits:
                return asyncio.run(awaited(*given, **named))
            with JourneyClient(URL, sleep=self._network.sleep, **options) as client:
                return getattr(client, name)(*given, **named)

        return called


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Callable[..., Face]:
    """client(network, **options): a client of either kind on a network."""
    return lambda network, **options: Face(network, waits=request.param, **options)
