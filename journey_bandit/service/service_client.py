"""Service client for administration: what `registry sync` and `promote` ask of a running service. Every method raises
RemoteError, which says what could not be done and why, if the service does not answer as agreed.
"""

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx

from bandit.errors import RemoteError
from bandit.release import NO_NUDGE
from experiments.mlflow.approvals import Approval
from simulations.live.client import ServiceClient

_SECONDS = 10.0


class AdminClient(ServiceClient):
    """Client of one service for operators, with a key of scope admin and read unless the service runs with --dev.

    Nothing is tried again, and nothing is waited for longer than `seconds`: `registry sync` and `rollback` decide
    what a silence means. Every method raises RemoteError.
    """

    def __init__(self, url: str, key: str = "", seconds: float = _SECONDS):
        super().__init__(url, key, tries=1, seconds=seconds)

    def stages(self) -> tuple[str, list[str]]:
        """Name of the app, and names of the stages that the service serves. Raises RemoteError if it is silent."""
        reply = self.declared()
        return str(reply["app"]), [str(stage["stage"]) for stage in reply["stages"]]

    def releases(self, *, judged: bool = False) -> dict[str, dict[str, Any]]:
        """Newest release of each stage that ever had one, as JSON objects by stage, as the service lists them.
        Candidates that are judged count only with `judged`: they decide beside a release, not instead. Raises
        RemoteError.
        """
        return {str(kept["stage"]): dict(kept) for kept in self.release_history() if judged or not kept["judge"]}

    def release(
        self, stage: str, model: str, move: Approval, files: Mapping[str, bytes], judged: int = 0
    ) -> dict[str, Any]:
        """Post a release: serve what an approval says, with the files of its version, or nothing; the release as the
        service recorded it. With `judged`, the version is a candidate that is judged after so many decisions.
        """
        sent = {name.split(".")[0]: base64.b64encode(data).decode() for name, data in files.items()}
        body = {
            "model": model,
            "version": move.version,
            "kind": move.kind,
            "approved_by": move.by,
            "approved_at": move.at,
            "reason": move.why,
            "sha256": move.sha256,
            "belief_sha256": move.belief_sha256,
            **sent,
            **({"judge": True, "decisions": judged} if judged else {}),
        }
        return dict(self._call("PUT", f"/v1/policies/{stage}/release", body))

    def check_may_release(self, stage: str) -> None:
        """Check that the key may release at a stage, and change nothing: what is sent lacks every field, and is refused
        for that (400) once the key's scope was checked. Raises RemoteError for any other answer.
        """
        self._send("PUT", f"/v1/policies/{stage}/release", {}, expected=httpx.codes.BAD_REQUEST)

    def rollback(self, stage: str, to: str | None, by: str, at: str, why: str) -> dict[str, Any]:
        """Roll a stage back at once, from what the service's ledger holds; the release that decides now. `to`: a
        version, "" for what is learned live, `NO_NUDGE` for no nudge to anybody, None for the one before; `at`: when it
        was approved, an ISO 8601 time.
        """
        body = {"to": to, "approved_by": by, "approved_at": at, "reason": why}
        return dict(self._call("POST", f"/v1/policies/{stage}/rollback", body))

    def acknowledge(self, stage: str, reporter: str, verdict: str, by: str, why: str) -> dict[str, Any]:
        """Say what was found out about a key that was accused at a stage; the acknowledgement as the service keeps it.
        Raises RemoteError.
        """
        body = {"reporter": reporter, "verdict": verdict, "acknowledged_by": by, "reason": why}
        return dict(self._call("POST", f"/v1/policies/{stage}/reward-alarms/acknowledge", body))

    def operate(self, verb: str, stage: str, nudge: str | None, by: str, why: str) -> dict[str, Any]:
        """Pause, resume or retire a nudge of a stage, all of them for None; the action as the service keeps it. Raises
        RemoteError.
        """
        body = {"by": by, "reason": why, **({} if nudge is None else {"nudge": nudge})}
        return dict(self._call("POST", f"/v1/policies/{stage}/{verb}", body))

    def set_share(self, what: str, stage: str, share: float | None, by: str, why: str) -> dict[str, Any]:
        """Set the "ramp" or the "holdout" of a stage, as declared for None; the action as the service keeps it. Raises
        RemoteError.
        """
        return dict(self._call("POST", f"/v1/policies/{stage}/{what}", {"share": share, "by": by, "reason": why}))

    def declared(self) -> dict[str, Any]:
        """The app, its currency, and its stages as declared, as the API lists them. Raises RemoteError."""
        return self._call("GET", "/v1/stages")

    def health(self) -> dict[str, Any]:
        """State of the service, also of one that is not ready: it answers 503 then. Raises RemoteError if it is silent
        or answers something else.
        """
        try:
            response = self._http.get("/health/ready")
            state = response.json()
        except (httpx.TransportError, ValueError) as error:
            raise RemoteError(f"{self.url} does not answer: {type(error).__name__}: {error}") from error
        if not isinstance(state, dict) or "failing" not in state:
            raise RemoteError(f"GET {self.url}/health/ready: {response.status_code}, and no state of a service")
        return state

    def receipt(self, decision: UUID) -> dict[str, Any]:
        """Receipt of a decision. Raises RemoteError, also where there is no such decision."""
        return self._call("GET", f"/v1/decisions/{decision}")

    def recomputation(self, decision: UUID) -> dict[str, Any]:
        """A decision recomputed from the ledger by the service. Raises RemoteError."""
        return self._call("GET", f"/v1/decisions/{decision}/recomputation")

    def release_history(self) -> list[dict[str, Any]]:
        """Every release of the app, oldest first. Raises RemoteError."""
        return list(self._call("GET", "/v1/releases")["releases"])

    def policies(self) -> list[dict[str, Any]]:
        """Live policy of every stage. Raises RemoteError."""
        return list(self._call("GET", "/v1/policies")["policies"])

    def operator_actions(self) -> list[dict[str, Any]]:
        """What operators did to nudges, oldest first. Raises RemoteError."""
        return list(self._call("GET", "/v1/operator-actions")["actions"])

    def erase(self, user_id: str, *, forget: bool) -> dict[str, Any]:
        """Erase a person: what the service says of it. Raises RemoteError."""
        path = f"/v1/users/{quote(user_id, safe='')}"
        return dict(self._call("DELETE", f"{path}?forget=true" if forget else path))

    def person(self, user_id: str) -> dict[str, Any]:
        """All that the service's ledger holds of a person. Raises RemoteError."""
        return dict(self._call("GET", f"/v1/users/{quote(user_id, safe='')}/export"))

    def went_back(self, stage: str, move: Approval) -> bool:
        """Roll back to what an approval says, from the service's ledger, if that has it; whether it had. Raises
        RemoteError for any other failure.
        """
        wanted = (stage, move.version, move.sha256)
        history = self.release_history()
        known = {(kept["stage"], kept["version"], kept["sha256"]) for kept in history if not kept["judge"]}
        if wanted not in known and move.version != NO_NUDGE:
            return False
        self.rollback(stage, move.version, move.by, move.at, move.why)
        return True

    def tell(self, word: Mapping[str, Any]) -> None:
        """Post a heartbeat of the sync: how the registry is, for the service's health page. Raises RemoteError if the
        service does not answer.
        """
        self._call("POST", "/v1/registry", dict(word))


def serves(kept: Mapping[str, Any] | None, model: str, move: Approval) -> bool:
    """Whether a service's newest release (`kept`, None if it has none) is what the approval says, so that nothing need
    be posted.
    """
    if kept is None:
        return not move.version
    at = dt.datetime.fromisoformat(str(kept["approved_at"]))
    same = (kept["model"], kept["version"], kept["sha256"]) == (model, move.version, move.sha256)
    return same and at == dt.datetime.fromisoformat(move.at)


def decided_after(kept: Mapping[str, Any], move: Approval | None) -> bool:
    """Whether the service went back to a release by itself after the registry's last approval; then the registry must
    not overrule it.
    """
    if kept["kind"] != "rollback":
        return False
    at = dt.datetime.fromisoformat(str(kept["approved_at"]))
    return move is None or at > dt.datetime.fromisoformat(move.at)
