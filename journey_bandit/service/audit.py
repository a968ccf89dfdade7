"""Commands `journey-bandit rebuild` and `receipt`: prove from the ledger what the service learned and decided; and
`alarms` and `retract`: see which keys were accused, say what was found out, and take what a key reported out of that.
"""

import datetime as dt
import sys
import uuid
from collections import Counter, deque
from itertools import islice
from typing import cast

import click
import msgspec

from api import clocks
from api.decisions.service import receipt_of
from api.learning import withdrawals
from api.ledger import audit, statistics_store
from api.ledger.recomputation import Verdict, recompute
from api.stores import file_of, is_database, open_store
from api.stores.protocol import Store
from api.times import microseconds, time_of
from bandit.errors import InvalidRequest, LedgerError, NotFound, Problem
from bandit.records import AlarmAcknowledgement, AlarmVerdict, Withdrawal
from bandit.reporters.acknowledgements import about
from journey_bandit.service.service_client import AdminClient
from journey_bandit.shell_user import shell_user

_STORE = click.option("--store", required=True, help="Store of the service, which may be running.")
_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])
_MOST_DAMAGES = 20  # that are named
_SALT = click.option("--salt", envvar="JOURNEY_BANDIT_SALT", help="If the service was given one.")


@click.command()
@_STORE
@click.option("--verify", is_flag=True, help="Only compare, never write; exit status 1 on any difference.")
@click.option("--receipts", type=click.IntRange(min=0), default=0, help="Also recompute so many of the last decisions.")
@_SALT
def rebuild(store: str, verify: bool, receipts: int, salt: str | None) -> None:
    """Sum every stage's belief from the ledger, and compare it with (or replace) the stored one, bit for bit."""
    if store == "memory://":
        raise LedgerError("a ledger in memory ends with its service: there is nothing to rebuild; give sqlite:///FILE")
    opened = open_store(store, read_only=verify)
    good = not _damaged(opened) if verify else True
    for result in audit.rebuild(opened, audit.stages(opened)):
        verdict = "equal" if result.equal else "DIFFERENT"
        click.echo(f"{result.stage:<12} {result.settlements:>9} settled  {result.belief.digest()[:16]}  {verdict}")
        for seq in result.wrong_rewards[:5]:
            click.echo(f"  decision number {seq}: its settled reward does not follow from its outcomes")
        good &= result.equal
        if not verify and not result.equal:
            statistics_store.replace(opened, result.stage, result.tally)
            click.echo("  replaced")
    if receipts:
        good &= _recompute_last(opened, receipts, salt)
    opened.close()
    sys.exit(0 if good or not verify else 1)


def _damaged(opened: Store) -> bool:
    """Whether anything is not as it was committed; what is not is named."""
    damages = list(islice(opened.damages(), _MOST_DAMAGES))
    for what in damages:
        click.echo(f"DAMAGED: {what} → restore a backup")
    return bool(damages)


def _recompute_last(opened: Store, n: int, salt: str | None) -> bool:
    """Whether the last `n` decisions follow from the ledger; those that do not are named."""
    last = deque((found for found in opened.decisions() if not found.decision.is_remainder), maxlen=n)
    key, verdicts = audit.salt_of(opened, salt), Counter[Verdict]()
    for found in last:
        result = recompute(opened, found, key)
        verdicts[result.verdict] += 1
        if result.verdict == "different":
            click.echo(f"  decision {found.decision.id}: {result.said}")
    guessed, forgotten = verdicts["impossible"], verdicts["forgotten"]
    told = f", {guessed} cannot be recomputed" if guessed else ""
    told += f", {forgotten} rest on people who are forgotten: u and the draw equal" if forgotten else ""
    click.echo(f"receipts: {verdicts['different']} of {len(last)} differ{told}")
    return not verdicts["different"]


@click.command()
@_STORE
@click.argument("decision_id", type=click.UUID)
@_SALT
def receipt(store: str, decision_id: uuid.UUID, salt: str | None) -> None:
    """Show a decision's receipt, and recompute it from the ledger; exit status 1 if any number differs."""
    opened = open_store(store, read_only=True)
    found = opened.decisions_by_id([decision_id]).get(decision_id)
    if found is None:
        raise NotFound("decision_id", f"no decision {decision_id} in {store}", "give the id of an answered decision")
    decision = found.decision
    spec = opened.specs()[decision.stage_digest]
    kept = next((kept for kept in opened.releases() if kept.seq == decision.release), None)
    click.echo(msgspec.json.format(msgspec.json.encode(receipt_of(found, spec, kept))).decode())
    result = recompute(opened, found, audit.salt_of(opened, salt))
    opened.close()
    click.echo(f"recomputed: {result.said}", err=True)
    sys.exit(0 if result.verdict in ("equal", "forgotten") else 1)


@click.group()
def alarms() -> None:
    """See which keys were accused of forging rewards, and say what was found out about them."""


@alarms.command("list")
@_STORE
def listed(store: str) -> None:
    """Show the alarms of each stage, oldest first: time (UTC), stage, key, arm, mean reward that the key brought, what
    is usual at most, and what was found out.
    """
    opened, waiting = open_store(store, read_only=True), 0
    known = opened.acknowledgements()
    for name, statistics in statistics_store.load(opened, audit.stages(opened)).items():
        mine = [one for one in known if one.stage == name]
        for alarm in statistics.reward_watch.alarms:
            found = about(alarm, mine)
            waiting += found is None
            told = f"{found.verdict}, {found.who} {time_of(found.at):%Y-%m-%d}" if found else "not acknowledged"
            click.echo(
                f"{time_of(alarm.at):%Y-%m-%d %H:%M:%S}  {name:<12} {alarm.reporter:<16} {alarm.arm:<12} "
                f"{alarm.reward / alarm.decisions:.3g} of {alarm.allowed:.3g}  {told}"
            )
    opened.close()
    click.echo(f"{waiting} alarm(s) not acknowledged", err=True)


@alarms.command()
@click.argument("stage")
@click.argument("reporter", metavar="KEY_NAME")
@click.option("--verdict", type=click.Choice(["honest", "forged"]), required=True, help="What was found out.")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--who", default=shell_user, show_default="the user of this shell", help="Kept in the ledger.")
@click.option("--url", envvar="JOURNEY_BANDIT_URL", help="Of a running service.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scope admin.")
@click.option("--store", help="Store of a service that is stopped.")
def acknowledge(
    stage: str, reporter: str, verdict: str, reason: str, who: str, url: str | None, key: str, store: str | None
) -> None:
    """Acknowledge the alarms so far about a key at a stage: they warn no more.

    Where the stage pauses at an alarm, what the key reported is learned if it is honest, and left out for good if it is
    forged. Repeat it safely; what was interrupted goes on.
    """
    if bool(url) == bool(store):
        raise InvalidRequest(Problem("url", "give --url or --store, not both", "--url if the service runs"))
    if url:
        with AdminClient(url, key) as service:
            number = service.acknowledge(stage, reporter, verdict, who, reason)["number"]
    else:
        number = _offline(store or "", stage, reporter, cast(AlarmVerdict, verdict), who, reason)
    click.echo(f"acknowledgement {number}: {reporter!r} at {stage} is {verdict}")
    if verdict == "forged":
        click.echo("revoke the key; to take back what it taught: journey-bandit retract --key --since", err=True)


def _offline(store: str, stage: str, reporter: str, verdict: AlarmVerdict, who: str, reason: str) -> int:
    """Number of the acknowledgement that this process writes; LedgerError if a service runs on the ledger."""
    _check_there(store)
    asked = AlarmAcknowledgement(
        at=clocks.wall(), who=who, stage=stage, reporter=reporter, verdict=verdict, reason=reason
    )
    opened = open_store(store)
    try:
        done, corrected = withdrawals.acknowledge(opened, asked)
    finally:
        opened.close()
    click.echo(f"{corrected:,} settled decisions were corrected")
    return done.seq


@click.command()
@click.option("--store", required=True, help="Store of a service that is stopped.")
@click.option("--key", "reporter", required=True, help="Name of the API key whose reports do not count any more.")
@click.option("--since", type=_TIME, required=True, help="From this time on (UTC), by when they were received.")
@click.option("--until", type=_TIME, help="Before this time (UTC); without one, all up to now.")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--who", default=shell_user, show_default="the user of this shell", help="Kept in the ledger.")
def retract(store: str, reporter: str, since: dt.datetime, until: dt.datetime | None, reason: str, who: str) -> None:
    """Retract what an API key reported: outcomes, and outcomes of the events that it sent.

    They stay in the ledger, marked as retracted, and count no more: what they taught leaves the belief exactly, and
    evaluations read the corrected rewards. Repeat it safely; what was interrupted goes on. Revoke the key first.
    """
    _check_there(store)
    now = clocks.wall()
    first, end = _utc(since), now + 1 if until is None else _utc(until)
    asked = Withdrawal(at=now, who=who, reporter=reporter, since=first, until=end, reason=reason)
    opened = open_store(store)
    try:
        done, voided, corrected = withdrawals.retract(opened, asked)
    finally:
        opened.close()
    if not done.seq:
        click.echo(f"nothing to retract: {reporter!r} reported nothing then that counts")
    else:
        click.echo(f"retraction {done.seq} of {time_of(done.at):%Y-%m-%d %H:%M} UTC: {voided:,} outcomes")
    click.echo(f"{corrected:,} settled decisions were corrected")


def _check_there(store: str) -> None:
    """LedgerError for a file that does not exist: it would be made."""
    if not is_database(store) and not file_of(store).exists():
        raise LedgerError(f"{file_of(store)} does not exist: give the file of a service's --store")


def _utc(when: dt.datetime) -> int:
    return microseconds(when.replace(tzinfo=dt.UTC))
