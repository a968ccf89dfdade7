"""Decision service: decide, report and look up for the native protocol. It loads, calls the engine and saves; no HTTP
here, and no SQL.
"""

import asyncio
import datetime as dt
import hmac
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from api import clocks
from api.clocks import Clock
from api.decisions.budgets import Budgets
from api.decisions.frequency_caps import GlobalFrequencyCaps
from api.decisions.maker import DecisionMaker, PendingDecision
from api.decisions.pages import PageView
from api.decisions.replicas import CommittedLimits, LimitsOnEveryone
from api.decisions.sessions import UserSessions
from api.decisions.writer import DecisionWriter, WrittenDecision
from api.learning import holdout
from api.learning.worker import Worker
from api.messages.alarms import AlarmAcknowledgementReply, RewardAlarmReply
from api.messages.browser import BrowserDecisionReply, EvidenceOut
from api.messages.decisions import (
    AlarmReply,
    ArmReply,
    ArmScore,
    BudgetReply,
    DecisionReply,
    DecisionRequest,
    EvidenceIn,
    HoldoutReply,
    LossReply,
    NudgeOut,
    NudgePriceReply,
    OutcomeReply,
    OutcomeRequest,
    OverLimitReply,
    PoliciesReply,
    PolicyReply,
    Receipt,
    ReceiptOutcome,
    ReceiptSettlement,
    ReleaseOut,
    StageReply,
    StagesReply,
)
from api.messages.operations import ShareReply
from api.metrics import Metrics
from api.operations.guardrail_watch import guardrails_out
from api.operations.paused_nudges import action_out
from api.operations.stage_watch import stage_alarms_out
from api.stores.decision_log import DecisionRecord, OutcomeReceipt
from api.stores.protocol import Store
from api.times import microseconds, time_of
from bandit import engine, features
from bandit.budgets import MICRO, BudgetAccount
from bandit.catalogue.model import NONE, Catalogue, Stage
from bandit.errors import Conflict, Forbidden, InvalidRequest, JourneyBanditError, NotFound, Problem
from bandit.journey import folding
from bandit.learning.loss_account import LossAccount
from bandit.learning.loss_statement import statement
from bandit.records import AlarmAcknowledgement, Decision, Outcome, OutcomeKind, Release, Settlement
from bandit.reporters import acknowledgements
from bandit.reporters.reward_watch import RewardAlarm
from bandit.snapshot import Snapshot

_AT_ONCE = 8
"""Decisions of a batch that are prepared without a pause."""

_LISTED = 10
"""Users over a contribution limit that are named."""


class DecisionService:
    """Decisions, outcomes and look-ups of one app, as requests and replies of the native protocol. It owns the app's
    one DecisionMaker and DecisionWriter, which flags and rankings share.

    Guarantees: what is answered is durable; an item of a batch that cannot be used costs no other. Belongs to one event
    loop: what may take long (receipts) goes to other threads.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        worker: Worker,
        budgets: Budgets,
        *,
        salt: bytes,
        clock: Clock,
        metrics: Metrics,
        window_scale: float = 1.0,
    ):
        rules = folding.rules(catalogue)
        caps = GlobalFrequencyCaps(catalogue, store, clock(), window_scale)
        self.maker = DecisionMaker(
            rules,
            store,
            UserSessions(store, rules),
            budgets,
            caps,
            worker,
            salt=salt,
            window_scale=window_scale,
        )
        self.writer = DecisionWriter(worker, self.maker, store, metrics, clock)
        self.catalogue = catalogue
        self.worker = worker
        self._budgets = budgets
        self._store = store
        self._clock = clock
        self._salt = salt
        self._window_scale = window_scale
        self._specs = store.specs()
        self._releases: dict[int, Release] = {}
        self._batches = asyncio.Lock()
        if store.shared:
            worker.share(CommittedLimits(budgets, caps, lambda: self._limits(clock())), self.maker.follow)

    # -- decide ------------------------------------------------------------------------------------------------

    async def decide(self, request: DecisionRequest) -> DecisionReply:
        """Reply to one request, its decision durable. Raises InvalidRequest, NotFound (stage), Conflict (the id of
        another request), Overloaded and Unavailable.
        """
        pending = self._prepare(request)
        if isinstance(pending, JourneyBanditError):
            raise pending
        (written,) = await self.writer.write([pending])
        if isinstance(written, JourneyBanditError):
            raise written
        return self.reply(written.decision, duplicate=written.duplicate)

    async def decide_on(self, page: PageView, request: DecisionRequest) -> BrowserDecisionReply:
        """Reply to the request of a page, its decision durable, with the words and the evidence to show. Raises as
        `decide` does.
        """
        pending = self._prepare(request, page)
        if isinstance(pending, JourneyBanditError):
            raise pending
        (written,) = await self.writer.write([pending])
        if isinstance(written, JourneyBanditError):
            raise written
        decision, now = written.decision, time_of(self._clock())
        if written.duplicate and not self.maker.stands(decision, request, self._clock(), page):
            raise Conflict("decision_id", "what was decided may not be shown here now", "ask with a new decision_id")
        reply = self.reply(decision, duplicate=written.duplicate)
        nudge = self._specs[decision.stage_digest].nudges.get(decision.arm)
        return BrowserDecisionReply(
            decision_id=reply.decision_id,
            stage=reply.stage,
            nudge=reply.nudge,
            expires_at=reply.expires_at,
            now=now,
            duplicate=reply.duplicate,
            moment=reply.moment,
            content=page.content(nudge, self.catalogue.locale) if nudge else msgspec.UNSET,
            evidence=_evidence(request.evidence if written.reused else decision.evidence, now)
            if nudge and nudge.evidence
            else msgspec.UNSET,
        )

    async def decide_many(self, requests: Sequence[DecisionRequest]) -> list[DecisionReply | JourneyBanditError]:
        """Reply to each request, or what is wrong with it, in order; one durable write for all. Raises Overloaded if
        nothing was written, Unavailable if that is not known.
        """
        prepared = await self._prepare_many(requests)
        written = iter(await self.writer.write([one for one in prepared if isinstance(one, PendingDecision)]))
        return [self._answer(next(written)) if isinstance(one, PendingDecision) else one for one in prepared]

    async def _prepare_many(self, requests: Sequence[DecisionRequest]) -> list[PendingDecision | JourneyBanditError]:
        """Each request prepared, in order. The event loop has others' work after every few, and one batch at a time is
        prepared: however many come, a single request waits for a few decisions.
        """
        if len(requests) <= _AT_ONCE:
            return [self._prepare(request) for request in requests]
        prepared = list[PendingDecision | JourneyBanditError]()
        try:
            for start in range(0, len(requests), _AT_ONCE):
                async with self._batches:
                    prepared += [self._prepare(request) for request in requests[start : start + _AT_ONCE]]
                await asyncio.sleep(0)
        except BaseException:  # nobody will write what was reserved
            for one in prepared:
                if isinstance(one, PendingDecision):
                    self.maker.cancel(one)
            raise
        return prepared

    def _prepare(self, request: DecisionRequest, page: PageView | None = None) -> PendingDecision | JourneyBanditError:
        try:
            return self.maker.prepare(request, self._clock(), page)
        except (InvalidRequest, NotFound) as error:
            return error
        except RecursionError:
            return InvalidRequest(Problem("context", "nested too deep", "send texts, numbers and booleans"))

    def _answer(self, written: WrittenDecision | JourneyBanditError) -> DecisionReply | JourneyBanditError:
        if isinstance(written, JourneyBanditError):
            return written
        return self.reply(written.decision, duplicate=written.duplicate)

    def _limits(self, now: int) -> LimitsOnEveryone:
        """Budgets and caps on everyone as the ledger has them at `now` (µs)."""
        around = self.catalogue, self._store, now, self._window_scale
        return Budgets(*around), GlobalFrequencyCaps(*around)

    def reply(self, decision: Decision, *, duplicate: bool) -> DecisionReply:
        """Reply that is sent for a decision; `duplicate` says that it was made before. Reads the ledger only for a
        release that is not known yet.
        """
        spec = self._specs[decision.stage_digest]
        return DecisionReply(
            decision_id=decision.id,
            stage=decision.stage,
            nudge=_nudge(spec, decision.arm),
            propensity=self._propensity(decision),
            propensities={
                arm: float(p)
                for arm, p in zip(decision.arms(spec.arms), decision.propensity, strict=True)
                if arm not in decision.excluded
            },
            excluded=decision.excluded,
            policy=_policy(spec),
            policy_version=decision.settlement_version,
            holdout=decision.holdout,
            expires_at=time_of(decision.expires),
            notes=list(decision.notes),
            duplicate=duplicate,
            moment=(decision.moment if decision.is_actionable else None) if decision.moment else msgspec.UNSET,
            release=msgspec.UNSET if decision.release == 0 else release_out(self.release(decision.release)),
            outcome_token=self.outcome_token(decision.id) or msgspec.UNSET,
        )

    def outcome_token(self, decision_id: uuid.UUID) -> str | None:
        """Token that outcomes of a decision have to bring; None where the catalogue wants none. The same on every
        replica, and whenever it is asked for.
        """
        return engine.outcome_token(self._salt, decision_id) if self.catalogue.rewards_of == "decider" else None

    def release(self, number: int) -> Release:
        """Release of this number. It reads the ledger if it is not known yet; any thread may call."""
        if number not in self._releases:
            self._releases |= {kept.seq: kept for kept in self._store.releases()}
        return self._releases[number]

    def _propensity(self, decision: Decision) -> float:
        arms = decision.arms(self._specs[decision.stage_digest].arms)
        return float(decision.propensity[arms.index(decision.arm)])

    # -- outcomes ----------------------------------------------------------------------------------------------

    async def report(self, request: OutcomeRequest, reporter: str = "") -> OutcomeReply:
        """Reply to one reported outcome, durable. `reporter`: name of the key that reports it. Raises NotFound
        (decision), Forbidden (its token), Conflict, InvalidRequest, Overloaded and Unavailable.
        """
        result = (await self.report_many([request], reporter))[0]
        if isinstance(result, JourneyBanditError):
            raise result
        return result

    async def report_many(
        self, requests: Sequence[OutcomeRequest], reporter: str = ""
    ) -> list[OutcomeReply | JourneyBanditError]:
        """Reply to each reported outcome, or what is wrong with it, in order; one durable write for all. `reporter`:
        name of the key that reports them. Raises Overloaded if nothing was written, Unavailable if that is not known.
        """
        now = self._clock()
        outcomes = [
            Outcome(
                decision=request.decision_id,
                id=self._outcome_id(request),
                kind=request.kind,
                value=request.value,
                occurred=self._occurred(request, now),
                received=now,
                reporter=reporter,
            )
            for request in requests
            if self._has_token(request)
        ]
        receipts = await self.writer.report(outcomes) if outcomes else []
        answers = iter([_answered(outcome, receipt) for outcome, receipt in zip(outcomes, receipts, strict=True)])
        return [next(answers) if self._has_token(request) else _without_token(request) for request in requests]

    def _has_token(self, request: OutcomeRequest) -> bool:
        token = self.outcome_token(request.decision_id)
        return token is None or hmac.compare_digest(token.encode(), (request.outcome_token or "").encode())

    def _outcome_id(self, request: OutcomeRequest) -> str:
        """Id under which the ledger keeps an outcome; names of kinds are no ids of clients."""
        sent = request.outcome_id or request.kind
        hides = self.catalogue.personal_ids is True and sent not in get_args(OutcomeKind)
        return engine.pseudonym(self._salt, sent) if hides else sent

    def _occurred(self, request: OutcomeRequest, now: int) -> int:
        when = request.occurred_at
        return now if when is None else clocks.told(self._clock, microseconds(when), now)

    def user_hash(self, user_id: str) -> bytes:
        """Keyed hash of a user's id, as the ledger has it."""
        return engine.user_hash(self._salt, user_id)

    def is_of(self, decision_id: uuid.UUID, user_id: str) -> bool:
        """Whether a decision was made for a user, by this id of theirs. Reads the ledger."""
        found = self._store.decisions_by_id([decision_id]).get(decision_id)
        return found is not None and found.decision.user == self.user_hash(user_id)

    # -- look up -----------------------------------------------------------------------------------------------

    async def receipt(self, decision_id: uuid.UUID) -> Receipt:
        """Receipt of a decision: all that the ledger holds of it, read in another thread. Raises NotFound."""
        found = (await asyncio.to_thread(self._store.decisions_by_id, [decision_id])).get(decision_id)
        if found is None:
            raise NotFound("decision_id", f"no decision {decision_id}", "use the id of an answered decision")
        number = found.decision.release
        kept = await asyncio.to_thread(self.release, number) if number else None
        return receipt_of(found, self._specs[found.decision.stage_digest], kept)

    def stages(self) -> StagesReply:
        """Stages as the catalogue declares them, with the attribution windows (seconds) as they run here."""
        return StagesReply(
            self.catalogue.app,
            self.catalogue.currency,
            [
                StageReply(
                    stage=name,
                    description=stage.description,
                    features=msgspec.to_builtins(stage.features),
                    nudges=_declared(stage),
                    reward=msgspec.to_builtins(stage.reward),
                    window_seconds=stage.reward.seconds * self._window_scale,
                    declared_seconds=stage.reward.seconds,
                    floor=stage.common_floor,
                    holdout=self.worker.traffic.stage(name).holdout,
                    activation=stage.activation,
                    policy=msgspec.to_builtins(stage.policy),
                )
                for name, stage in self.catalogue.stages.items()
            ],
        )

    async def policies(self, *, wait: bool = False) -> PoliciesReply:
        """Live policy of every stage: version, arms, budgets, alarms of drift. With `wait`, answered after everything
        acknowledged and matured so far was learned; raises Overloaded and Unavailable then.
        """
        if wait:
            await self.worker.submit(learn=True)
        audits = await asyncio.to_thread(self._audits)
        over = await asyncio.to_thread(self._over_limit, self._clock())
        return PoliciesReply([self.policy(name, audits.get(name), over[name]) for name in self.worker.prepared])

    def policy(
        self, name: str, audit: HoldoutReply | None = None, over_limit: Sequence[OverLimitReply] = ()
    ) -> PolicyReply:
        """Live policy of one stage, from memory, with an audit and users over the limit that were found before. Raises
        NotFound.
        """
        self.catalogue.stage(name)
        live = self.worker.prepared[name]
        return PolicyReply(
            stage=name,
            policy=msgspec.to_builtins(live.snapshot.stage_spec.policy),
            version=live.snapshot.version,
            belief_sha256=live.snapshot.belief.digest(),
            release=release_out(self.release(live.release)) if live.release else None,
            loss=loss_out(live.snapshot.stage_spec, live.snapshot.loss_account),
            arms=_taught(live.snapshot),
            paused=[action_out(one) for one in self.worker.pauses.of(name)],
            ramp=self._share(name, "ramp"),
            holdout_share=self._share(name, "holdout"),
            guardrails=guardrails_out(self.worker.guardrails, name),
            alarms=stage_alarms_out(self.worker.stage_watch, name),
            budgets=[_budget(n, a) for n, a in self.budgets(name).items()],
            drift=[
                AlarmReply(a.arm, a.direction, time_of(a.at), a.through)
                for a in self.worker.learning.watches[name].alarms
            ],
            reward_alarms=self._reward_alarms(name),
            nudge_price=_price(live.snapshot),
            holdout=audit,
            over_limit=list(over_limit),
        )

    def _share(self, name: str, what: Literal["ramp", "holdout"]) -> ShareReply:
        """Ramp or holdout of a stage: what counts now, what is declared, and who set it."""
        set_by = getattr(self.worker.traffic.of(name), what)
        declared = getattr(self.worker.prepared.declared(name).snapshot.stage_spec, what)
        share = declared if set_by is None else set_by.share
        return ShareReply(share=share, declared=declared, set=None if set_by is None else action_out(set_by))

    def budgets(self, stage: str) -> Mapping[str, BudgetAccount]:
        """Accounts of a stage's budgets by nudge, as of now."""
        return self._budgets.accounts(stage, self._clock())

    def _reward_alarms(self, name: str) -> list[RewardAlarmReply]:
        learning = self.worker.learning
        known, held = learning.acknowledged_of(name), learning.held(name)
        return [_reward_alarm(alarm, known, held) for alarm in learning.reward_watches[name].alarms]

    def _audits(self) -> dict[str, HoldoutReply]:
        """Audit of each stage that has a holdout, from all of its settlements. Reads the ledger, in any thread."""
        now = {name: self.worker.traffic.stage(name) for name in self.catalogue.stages}
        found = {name: holdout.audit_of(self._store, name, stage) for name, stage in now.items()}
        return {name: HoldoutReply(**msgspec.structs.asdict(one)) for name, one in found.items() if one is not None}

    def _over_limit(self, now: int) -> dict[str, list[OverLimitReply]]:
        """Users over each stage's contribution limit, within its period before `now`. Reads the ledger, in any
        thread.
        """
        since = {
            name: now - round(stage.contribution.seconds * self._window_scale * 1e6) if stage.contribution else now
            for name, stage in self.catalogue.stages.items()
        }
        return {
            name: [
                OverLimitReply(user=one.user.hex(), decisions=one.decisions, newest=time_of(one.newest))
                for one in self._store.over_limit(name, begin, _LISTED)
            ]
            for name, begin in since.items()
        }

    def snapshot(self, stage: str) -> Snapshot:
        """Live snapshot of a stage: what decides there now, as data, as it was declared. Raises NotFound."""
        self.catalogue.stage(stage)
        return self.worker.prepared.declared(stage).snapshot


def _without_token(request: OutcomeRequest) -> Forbidden:
    what = "missing" if request.outcome_token is None else "not the one of this decision"
    return Forbidden("outcome_token", what, "send the `outcome_token` that the decision was answered with")


def _answered(outcome: Outcome, receipt: OutcomeReceipt) -> OutcomeReply | JourneyBanditError:
    """What is answered for a reported outcome."""
    if receipt.problem and receipt.status == "conflict":
        return Conflict(receipt.problem.field, receipt.problem.problem, receipt.problem.fix)
    if receipt.problem:
        return InvalidRequest(receipt.problem)
    if receipt.status == "unknown":
        fix = "report outcomes only for decisions that this service answered with 200; none for a person who was erased"
        return NotFound("decision_id", f"no decision {outcome.decision}", fix)
    if receipt.status == "conflict":
        problem = f"outcome {outcome.id!r} of this decision was recorded with other content"
        return Conflict("outcome_id", problem, "send another outcome_id for another outcome")
    return OutcomeReply(
        recorded=True,
        duplicate=receipt.status == "duplicate",
        late=receipt.late,
        corrects=receipt.corrects or msgspec.UNSET,
        notes=list(receipt.notes) or msgspec.UNSET,
    )


def release_out(kept: Release) -> ReleaseOut:
    """Release as replies show it, without its bytes, who approved it and why."""
    judge = True if kept.judge else msgspec.UNSET
    return ReleaseOut(number=kept.seq, model=kept.model, version=kept.version, sha256=kept.sha256, judge=judge)


def loss_out(spec: Stage, account: LossAccount | None) -> LossReply | None:
    """Loss account as replies show it, amounts in the app's currency; None where there is none."""
    if account is None:
        return None
    found = statement(spec, account)
    return LossReply(**{name: getattr(found, name) for name in LossReply.__struct_fields__})


def receipt_of(found: DecisionRecord, spec: Stage, release: Release | None) -> Receipt:
    """Receipt of a decision as a person reads it, from its ledger rows, the declaration it was made under, and the
    release that decided, if one did.
    """
    decision, done = found.decision, found.settlement
    columns, arms = features.of(spec).columns, decision.arms(spec.arms)
    scores = zip(decision.mean, decision.sd, decision.propensity, strict=True)
    return Receipt(
        decision_id=decision.id,
        seq=found.seq,
        stage=decision.stage,
        nudge=_nudge(spec, decision.arm),
        decided_at=time_of(decision.at),
        expires_at=time_of(decision.expires),
        policy=_policy(spec),
        policy_version=decision.settlement_version,
        release=release_out(release) if release else None,
        loss=loss_out(spec, decision.loss_account),
        spec=decision.stage_digest,
        holdout=decision.holdout,
        x={c: v for c, v in zip(columns, decision.x.tolist(), strict=True) if v or not spec.has_request_actions},
        eligible=[arm for arm in arms if arm not in decision.excluded],
        excluded=decision.excluded,
        evidence={k: time_of(v) if k != "stock" and isinstance(v, int) else v for k, v in decision.evidence.items()},
        arms={arm: ArmScore(*map(float, score)) for arm, score in zip(arms, scores, strict=True)},
        candidate=dict(zip(arms, decision.candidate.tolist(), strict=True))
        if len(decision.candidate)
        else msgspec.UNSET,
        u=decision.u,
        notes=list(decision.notes),
        outcomes=list(_reported(found.outcomes)),
        settled=_settled(done) if done else None,
        corrected=[_settled(one) for one in found.earlier] or msgspec.UNSET,
    )


def _reported(outcomes: Sequence[Outcome]) -> Iterator[ReceiptOutcome]:
    gone = {o.voids: time_of(o.received) for o in outcomes if o.withdrawal}
    for o in outcomes:
        if not o.withdrawal:
            times = time_of(o.occurred), time_of(o.received)
            yield ReceiptOutcome(o.id, o.kind, o.value, *times, o.late, o.reporter, gone.get(o.id, msgspec.UNSET))


def _settled(done: Settlement) -> ReceiptSettlement:
    return ReceiptSettlement(done.seq, done.reward, done.why, done.learned, time_of(done.at))


def _declared(stage: Stage) -> dict[str, Any]:
    """Nudges as declared, no nudge first; none where actions come with the request."""
    return (
        {} if stage.has_request_actions else {NONE: {"type": NONE, "format": NONE}, **msgspec.to_builtins(stage.nudges)}
    )


def _evidence(told: EvidenceIn | Mapping[str, str | int], now: dt.datetime) -> EvidenceOut:
    """Evidence as a page shows it: what came with this request, or what the decision recorded."""
    if isinstance(told, EvidenceIn):
        return EvidenceOut(stock=told.stock, deadline=told.deadline, as_of=told.as_of or now)
    known = {name: value for name, value in told.items() if isinstance(value, int)}
    times = {name: time_of(value) for name, value in known.items() if name != "stock"}
    return EvidenceOut(stock=known.get("stock"), **({"as_of": now} | times))


def acknowledged(found: AlarmAcknowledgement) -> AlarmAcknowledgementReply:
    """Acknowledgement as replies show it."""
    return AlarmAcknowledgementReply(
        number=found.seq,
        verdict=found.verdict,
        acknowledged_by=found.who,
        acknowledged_at=time_of(found.at),
        reason=found.reason,
    )


def _reward_alarm(alarm: RewardAlarm, known: Sequence[AlarmAcknowledgement], held: Collection[str]) -> RewardAlarmReply:
    about = acknowledgements.about(alarm, known)
    return RewardAlarmReply(
        reporter=alarm.reporter,
        arm=alarm.arm,
        raised_at=time_of(alarm.at),
        through_version=alarm.through,
        decisions=alarm.decisions,
        rate=alarm.reward / alarm.decisions,
        usual_at_most=alarm.allowed,
        acknowledged=None if about is None else acknowledged(about),
        held=alarm.reporter in held,
    )


def _price(snapshot: Snapshot) -> NudgePriceReply | None:
    found, spec = snapshot.nudge_price, snapshot.stage_spec
    if found is None:
        return None
    unit = spec.reward.value * (spec.reward.max - spec.reward.min)
    return NudgePriceReply(
        price=unit * found.price,
        low=unit * found.low,
        high=unit * found.high,
        charged=spec.price is None,
        evidence=found.evidence,
        decisions=found.decisions,
        people=found.people,
        nudges=found.nudges,
        opt_outs=found.opt_outs,
    )


def _taught(snapshot: Snapshot) -> list[ArmReply]:
    reward, belief = snapshot.stage_spec.reward, snapshot.belief
    mean = [
        reward.min + (reward.max - reward.min) * s / n if n else None
        for s, n in zip(belief.reward, belief.n, strict=True)  # of revenue, the amounts' rows follow
    ]
    return [
        ArmReply(arm, round(n), None if m is None else float(m))
        for arm, n, m in zip(snapshot.stage_spec.arms, belief.n, mean, strict=False)
    ]


def _budget(nudge: str, account: BudgetAccount) -> BudgetReply:
    left = max(account.amount - account.committed, 0)
    ends = time_of((account.number + 1) * account.period)
    return BudgetReply(nudge, account.amount / MICRO, account.committed / MICRO, left / MICRO, ends)


def _nudge(spec: Stage, arm: str) -> NudgeOut:
    if arm == NONE:
        return NudgeOut(NONE, NONE, NONE, {})
    if spec.has_request_actions:
        return NudgeOut(arm, "action", "action", {})
    nudge = spec.nudges[arm]
    return NudgeOut(arm, nudge.type, nudge.format, nudge.payload)


def _policy(spec: Stage) -> str:
    return str(spec.policy.__struct_config__.tag)
