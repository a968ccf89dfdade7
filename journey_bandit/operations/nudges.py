"""Command `journey-bandit nudges`: pause, resume and retire nudges of a running service, and see who did."""

import datetime as dt

import click

from bandit.errors import InvalidRequest, Problem
from journey_bandit.service.service_client import AdminClient
from journey_bandit.shell_user import shell_user

_URL = click.option("--url", envvar="JOURNEY_BANDIT_URL", required=True, help="Of the running service.")
_KEY = click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scope admin; read, to list.")
_TOLD = {
    "pause": "is not shown from the next decision on",
    "resume": "may be shown again",
    "retire": "is not shown any more",
}


@click.group()
def nudges() -> None:
    """Pause, resume and retire nudges while the service runs, and see who did."""


def _changing(verb: str, text: str) -> click.Command:
    @click.argument("stage")
    @click.argument("nudge", required=False)
    @click.option("--all", "every", is_flag=True, help="All nudges of the stage.")
    @click.option("--reason", required=True, help="Kept in the ledger, and said by receipts.")
    @click.option("--who", default=shell_user, show_default="the user of this shell", help="Kept in the ledger.")
    @_URL
    @_KEY
    def change(stage: str, nudge: str | None, every: bool, reason: str, who: str, url: str, key: str) -> None:
        if every == (nudge is not None):
            raise InvalidRequest(Problem("nudge", "give a nudge or --all, not both", "--all means the whole stage"))
        with AdminClient(url, key) as service:
            done = service.operate(verb, stage, nudge, who, reason)
        what = f"{stage}.{nudge}" if nudge else f"every nudge of {stage}"
        click.echo(f"{done['number']}: {what} {_TOLD[verb]} ({done['who']}: {done['reason']})")

    change.__doc__ = text
    return click.command(verb)(change)


_TEXTS = {
    "pause": "Show a nudge to nobody for now. Repeat it safely.",
    "resume": "Show a paused nudge again. Repeat it safely.",
    "retire": "Show a nudge to nobody any more: it cannot be resumed, only declared under another name.",
}
for _verb, _text in _TEXTS.items():
    nudges.add_command(_changing(_verb, _text))


@nudges.command("list")
@_URL
@_KEY
def listed(url: str, key: str) -> None:
    """Show what operators did, oldest first: number, time (UTC), action, nudge, who and why."""
    with AdminClient(url, key) as service:
        actions = service.operator_actions()
    for one in actions:
        at = dt.datetime.fromisoformat(str(one["at"]))
        what = one["stage"] if one["action"] in ("ramp", "holdout") else f"{one['stage']}.{one['nudge'] or '(all)'}"
        if what == one["stage"]:
            what += " as declared" if one["share"] is None else f" {one['share']:.6g}"
        click.echo(
            f"{one['number']:>4}  {at:%Y-%m-%d %H:%M:%S}  {one['action']:<7} {what:<24} {one['who']}: {one['reason']}"
        )
