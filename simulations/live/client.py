"""Client of the native HTTP API: the only one of the project; commands for operators extend it with what needs a key of
scope admin. It retries with the same ids, which is always safe.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from bandit.errors import RemoteError
from bandit.snapshot import Snapshot, from_zip

_PAUSE = 0.2  # seconds before the first retry, doubled each time


class ServiceClient:
    """Blocking client of one service at `url`; not for concurrent use. Use it in a `with` block, which closes the
    connection. Its attribute `url` has no user and password: these are sent, and stand in no message or log.

    Calls are tried `tries` times on 503 and on network errors, with pauses from 0.2 s that double; an answer is waited
    for `seconds`. Methods raise RemoteError with what could not be done and why.
    """

    def __init__(self, url: str, key: str = "", *, tries: int = 5, seconds: float = 30.0):
        given = httpx.URL(url.rstrip("/"))
        self.url, self._tries = str(given.copy_with(userinfo=b"")), tries
        headers = {"X-API-Key": key} if key else {}
        auth = (given.username, given.password) if given.userinfo else None
        self._http = httpx.Client(base_url=self.url, auth=auth, headers=headers, timeout=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def decide(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Decisions for up to 1,000 requests, in their order, as the objects of the API. Raises RemoteError if any of
        them is refused.
        """
        items = self._call("POST", "/v1/decisions/batch", {"decisions": list(requests)})["decisions"]
        return [_item(item, "decision") for item in items]

    def report(self, outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Report up to 1,000 outcomes; the service's receipts, in order. Without outcomes nothing is sent. Raises
        RemoteError if any of them is refused.
        """
        if not outcomes:
            return []
        items = self._call("POST", "/v1/outcomes/batch", {"outcomes": list(outcomes)})["outcomes"]
        return [_item(item, "outcome") for item in items]

    def stage(self, name: str) -> tuple[str, dict[str, Any]]:
        """The app's name, and what it declares for a stage. Raises RemoteError if the service has no such stage."""
        reply = self._call("GET", "/v1/stages")
        for stage in reply["stages"]:
            if stage["stage"] == name:
                return str(reply["app"]), stage
        raise RemoteError(f"{self.url} serves {reply['app']}, which has no stage {name!r}")

    def policy(self, stage: str, *, wait: bool = False) -> dict[str, Any]:
        """The live policy of a stage, as the API describes it; with `wait`, only after all that matured so far was
        learned.
        """
        reply = self._call("GET", f"/v1/policies?wait={'true' if wait else 'false'}")
        return next(dict(p) for p in reply["policies"] if p["stage"] == stage)

    def now(self) -> int | None:
        """Simulated time in µs since 1970 where the service's clock is driven; None where it is the wall's."""
        response = self._http.get("/v1/clock")
        return int(response.json()["now"]) if response.status_code == 200 else None

    def advance(self, microseconds: int) -> None:
        """Let so many µs of simulated time pass. Not to be sent twice, so it is not retried; raises RemoteError if the
        service refuses.
        """
        response = self._http.post("/v1/clock", json={"microseconds": microseconds})
        if response.status_code != 200:
            raise RemoteError(f"POST {self.url}/v1/clock: {response.status_code} {response.text[:500]}")

    def snapshot(self, stage: str) -> Snapshot:
        """Snapshot that decides at a stage now. Raises SnapshotError if the bytes received cannot be trusted."""
        return from_zip(self._send("GET", f"/v1/policies/{stage}/snapshot", None).content)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        reply: dict[str, Any] = self._send(method, path, body).json()
        return reply

    def _send(self, method: str, path: str, body: Any, expected: int = httpx.codes.OK) -> httpx.Response:
        failure = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TransportError as error:
                failure = f"{self.url} does not answer: {type(error).__name__}: {error}"
                continue
            if response.status_code == expected:
                return response
            failure = f"{method} {self.url}{path}: {response.status_code} {_said(response)}"
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
        raise RemoteError(failure)


def outcome_of(decision: Mapping[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    """Outcome of a decision as it was answered, as the object of the API; with its token where the service gave one."""
    token = {name: decision[name] for name in ("outcome_token",) if name in decision}
    return {"decision_id": decision["decision_id"], "kind": kind, **more, **token}


def _said(response: httpx.Response) -> str:
    """What a refusal says, in short: the detail of problem JSON, or the text."""
    problem = response.json() if "json" in response.headers.get("content-type", "") else None
    return str(problem.get("detail", response.text) if isinstance(problem, dict) else response.text)[:1000]


def _item(item: dict[str, Any], what: str) -> dict[str, Any]:
    if item["status"] != 200:
        raise RemoteError(f"{what} refused: {item['problem']['detail']}")
    found: dict[str, Any] = item[what]
    return found
