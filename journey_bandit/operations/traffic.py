"""Command `journey-bandit traffic`: set the ramp and the holdout of a stage while the service runs."""

import math

import click

from bandit.errors import InvalidRequest, Problem
from journey_bandit.service.service_client import AdminClient
from journey_bandit.shell_user import shell_user

_URL = click.option("--url", envvar="JOURNEY_BANDIT_URL", required=True, help="Of the running service.")
_KEY = click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="With the scope admin; read, to show.")
_DECLARED = "declared"


@click.group()
def traffic() -> None:
    """Set which share of a stage's traffic its policy decides, and which share of people gets no nudge, while the
    service runs. `journey-bandit nudges list` says who did.
    """


def _share(text: str) -> float | None:
    """Share of what is typed: 0.1, 10%, or None for "declared". Raises InvalidRequest."""
    if text == _DECLARED:
        return None
    try:
        share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        if not math.isfinite(share):
            raise ValueError
        return share
    except ValueError:
        fix = f"a number such as 0.1, 10%, or {_DECLARED}"
        raise InvalidRequest(Problem("share", f"{text!r} is no share", fix)) from None


def _setting(what: str, text: str) -> click.Command:
    @click.argument("stage")
    @click.argument("share")
    @click.option("--reason", required=True, help="Kept in the ledger.")
    @click.option("--who", default=shell_user, show_default="the user of this shell", help="Kept in the ledger.")
    @_URL
    @_KEY
    def change(stage: str, share: str, reason: str, who: str, url: str, key: str) -> None:
        given = _share(share)
        with AdminClient(url, key) as service:
            done = service.set_share(what, stage, given, who, reason)
        said = "as declared" if done["share"] is None else f"{done['share']:.6g}"
        why = f"{done['who']}: {done['reason']}"
        click.echo(f"{done['number']}: the {what} of {stage} is {said} from the next decision on ({why})")

    change.__doc__ = text
    return click.command(what)(change)


_TEXTS = {
    "ramp": "Set the share of the traffic that the policy of STAGE decides: SHARE above 0, up to 1, or `declared`. "
    "Repeat it safely.",
    "holdout": "Set the share of people who get no nudge at STAGE: SHARE from 0, below 1, or `declared`. "
    "Repeat it safely.",
}
for _what, _text in _TEXTS.items():
    traffic.add_command(_setting(_what, _text))


@traffic.command("show")
@_URL
@_KEY
def show(url: str, key: str) -> None:
    """Show the ramp and the holdout of each stage: what counts now, what is declared, and who set it."""
    with AdminClient(url, key) as service:
        policies = service.policies()
    for one in policies:
        for what, said in (("ramp", one["ramp"]), ("holdout", one["holdout_share"])):
            by = f", set by {said['set']['who']}: {said['set']['reason']}" if said["set"] else ""
            click.echo(f"{one['stage']:<20} {what:<8} {said['share']:.6g} (declared {said['declared']:.6g}){by}")
