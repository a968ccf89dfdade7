"""Tools that change what a service does. They are offered with --allow-changes only, and the service itself checks each
of them: the key must have the scope `admin`.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field, Strict

from bandit.errors import InvalidRequest, JourneyBanditError, Problem
from bandit.release import NO_NUDGE
from experiments.inference.wording import against, number
from experiments.mlflow.approvals import Approval
from journey_bandit.assistants.answer_text import quoted
from journey_bandit.assistants.read_tools import STAGE, told
from journey_bandit.service.service_client import AdminClient

EVERY = "*"
"""What stands for all nudges of a stage: to leave a nudge out must not mean all of them."""

_NUDGE = Annotated[str, Field(description=f'Name of a nudge, or "{EVERY}" for every nudge of the stage.')]
_REASON = Annotated[str, Field(min_length=1, max_length=500, description="Why; kept in the ledger for good.")]
_SHARE = Annotated[
    Annotated[float, Strict()] | Literal["declared"],  # strict: true is no 100 %
    Field(description='A share such as 0.1 for 10 %, or "declared" for what the catalogue declares.'),
]
_BACK = {"before": None, "learned": "", "none": NO_NUDGE}
_TARGET = Annotated[
    str,
    Field(
        description='"before": what decided before the present release; "learned": what is learned live; "none": no '
        "nudge to anybody; or a version that decided before, as `review` lists it."
    ),
]
_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")


class ChangeTools:
    """Tools that change a service at `url` with a `key`, on behalf of `who`, which the ledger keeps with the name of
    the key. `ledger`, `mlflow`: of the service and its registry, "" for none: then nothing can be approved. Methods
    raise InvalidRequest and RemoteError, whose text is for the assistant.
    """

    def __init__(self, url: str, key: str, who: str, ledger: str, mlflow: str):
        self._url, self._key, self._who = url, key, f"the assistant of {who}"
        self._ledger, self._mlflow = ledger, mlflow

    def add_to(self, server: MCPServer[Any]) -> None:
        """Offer all of them; `approve` only with a registry and a ledger."""
        careful = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False)  # each appends
        tools = [self.pause, self.resume, self.set_ramp, self.set_holdout, self.rollback]
        for tool in [*tools, self.approve] if self._mlflow and self._ledger else tools:
            server.add_tool(tool, description=told(tool), annotations=careful, structured_output=False)

    def pause(self, stage: STAGE, nudge: _NUDGE, reason: _REASON) -> str:
        """CHANGES the service: show a nudge to nobody from the next decision on, until somebody resumes it."""
        return self._operate("pause", stage, nudge, reason, "is not shown from the next decision on")

    def resume(self, stage: STAGE, nudge: _NUDGE, reason: _REASON) -> str:
        """CHANGES the service: show a paused nudge again. "*" ends the pause of the whole stage; nudges that were
        paused one by one stay paused.
        """
        return self._operate("resume", stage, nudge, reason, "may be shown again")

    def set_ramp(self, stage: STAGE, share: _SHARE, reason: _REASON) -> str:
        """CHANGES the service: set the share of a stage's traffic that its policy decides, above 0, up to 1; the rest
        gets no nudge.
        """
        return self._set("ramp", stage, share, reason)

    def set_holdout(self, stage: STAGE, share: _SHARE, reason: _REASON) -> str:
        """CHANGES the service: set the share of people who get no nudge at a stage, from 0, below 1."""
        return self._set("holdout", stage, share, reason)

    def rollback(self, stage: STAGE, to: _TARGET, reason: _REASON) -> str:
        """CHANGES the service: let what decided before decide again, at once, from the service's own ledger."""
        version = _BACK.get(to, to)
        with AdminClient(self._url, self._key) as service:
            done = service.rollback(
                _named("stage", stage), version, self._who, dt.datetime.now(dt.UTC).isoformat(), reason
            )
        decides = {"": "what is learned live", NO_NUDGE: "no nudge to anybody"}.get(done["version"])
        return f"Release {done['number']}: {decides or 'version ' + quoted(done['version'])} decides {_at(stage, done)}"

    def approve(
        self,
        stage: STAGE,
        version: Annotated[str, Field(description="Number of a version in MLflow, as `review` lists it.")],
        reason: _REASON,
    ) -> str:
        """CHANGES the service: let a version of the registry decide, if the promotion rule, which is asked now, says
        "promote". It cannot be overruled here: only a person can, with `journey-bandit promote --override`.
        """
        from journey_bandit import console

        console.quiet()
        from bandit import release
        from bandit.snapshot import unpack
        from experiments.mlflow.approver import approver
        from experiments.mlflow.registry import Registry, digest, name_of
        from journey_bandit.registry.promote import approval_tags, asked_now
        from journey_bandit.registry.rollback import reviewed_gain
        from journey_bandit.workflows import publishing

        with AdminClient(self._url, self._key) as service:
            service.check_may_release(_named("stage", stage))
            registry, model = Registry(self._mlflow), name_of(service.stages()[0], stage)
            sha256 = registry.tags(model, version).get("policy_sha256", "")
            files = registry.files(model, version, sha256)
            snapshot, standing = unpack(files), registry.standing(model)
            release.prepare(snapshot, snapshot.stage_spec)
            over = against(reviewed_gain(registry.metrics(model, version)), "no nudge", "per decision net of costs")
            champion = publishing.compared(registry, standing)[0]
            rule = asked_now(self._ledger, stage, snapshot, digest(files), lambda: champion)
            if rule.decision != "promote":
                fix = "wait for more evidence, or let a person overrule it with `journey-bandit promote --override`"
                problem = f"the promotion rule says {rule.decision}: {quoted('; '.join(rule.reasons))}"
                raise InvalidRequest(Problem("version", problem, fix))
            asked = Approval(
                number=0, kind="promote", version=version, replaces=standing.move.version if standing.move else "",
                by=approver(self._mlflow, self._who), at=publishing.now_iso(), why=reason, gate=rule.decision,
                sha256=digest(files), belief_sha256=snapshot.belief.digest(),
            )  # fmt: skip
            # First the registry: `registry sync` posts what it approves, and would take back what it does not know.
            approved = registry.move(model, asked, approval_tags)
            decides = _released(service, stage, model, approved.move, files)
        notes = "".join(f" Note: MLflow: {quoted(one)}." for one in approved.untold)
        return f"At its review: {over}. {decides}{notes}"

    def _operate(self, verb: str, stage: str, nudge: str, reason: str, told: str) -> str:
        chosen = None if nudge == EVERY else _named("nudge", nudge)
        with AdminClient(self._url, self._key) as service:
            done = service.operate(verb, _named("stage", stage), chosen, self._who, reason)
        what = f"every nudge of {quoted(stage)}" if chosen is None else f"{quoted(chosen)} of {quoted(stage)}"
        return f"Action {done['number']}: {what} {told}. The ledger keeps who: {quoted(done['who'])}."

    def _set(self, what: str, stage: str, share: float | str, reason: str) -> str:
        if isinstance(share, float) and not math.isfinite(share):
            raise InvalidRequest(Problem("share", "it is no number", "a share such as 0.1, or declared"))
        given = None if isinstance(share, str) else share
        with AdminClient(self._url, self._key) as service:
            done = service.set_share(what, _named("stage", stage), given, self._who, reason)
        said = "as declared" if done["share"] is None else f"{number(100.0 * done['share'])} %"
        told = f"the {what} of {quoted(stage)} is {said} from the next decision on"
        return f"Action {done['number']}: {told}. The ledger keeps who: {quoted(done['who'])}."


def _named(field: str, name: str) -> str:
    """A name that can stand in a path. Raises InvalidRequest."""
    if not _ID.fullmatch(name):
        raise InvalidRequest(Problem(field, f"{quoted(name)} cannot be a name", "one that `stages` lists"))
    return name


def _released(service: AdminClient, stage: str, model: str, approved: Approval, files: Mapping[str, bytes]) -> str:
    """What the service says to a version that is approved already: what fails now undoes nothing, so it is told and not
    raised.
    """
    version = f"Version {quoted(approved.version)}"
    try:
        return f"{version} decides {_at(stage, service.release(stage, model, approved, files))}"
    except JourneyBanditError as error:
        later = "`journey-bandit registry sync` goes on trying; ask `stages` what decides"
        return f"{version} is approved, but the service did not say that it decides: {quoted(str(error))}. {later}."


def _at(stage: str, done: dict[str, Any]) -> str:
    return f"at {quoted(stage)} now. The ledger keeps who: {quoted(done['approved_by'])}."
