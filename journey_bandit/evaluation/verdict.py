"""Command `journey-bandit verdict`: how far a candidate that is judged has come, and its verdict at the declared
number.
"""

import sys

import click

from experiments.ope.evaluate import evaluation_json
from experiments.promotion.judgement import LIVE, NONE
from journey_bandit import console
from journey_bandit.evaluation import presentation
from journey_bandit.evaluation.presentation import REFUSED
from journey_bandit.workflows.judgements import judged_release


@click.command()
@click.option("--ledger", required=True, help="A service's ledger: its file; the service may be running.")
@click.option("--stage", required=True)
@click.option("--release", type=click.IntRange(min=1), help="Number of the judged release.  [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verdict(ledger: str, stage: str, release: int | None, as_json: bool) -> None:
    """Lift of a judged candidate over the live policy, net of costs per decision.

    Before the declared number of decisions: how many there are, and the sequence, which may be looked at always. From
    then on the ordinary interval at 95 %, always the same. Exit status 3: the log cannot answer.
    """
    found = judged_release(ledger, stage, release)
    kept, progress = found.release, found.judgement
    evaluation = progress.verdict or progress.sequence
    refused = progress.verdict.refused if progress.verdict else ()  # before that there may simply be too few
    if as_json:
        contrasts = evaluation_json(evaluation)["contrasts"] if evaluation else {}
        over_none, lift = contrasts.get(NONE), contrasts.get(LIVE)
        told = {"number": kept.seq, "model": kept.model, "version": kept.version, "declared": progress.declared}
        body = {
            "release": told,
            "made": progress.made,
            "known": progress.known,
            "final": progress.verdict is not None,
            "over_none": over_none,
            "lift": lift,
            "saved": progress.saved,
            "currency": found.currency,
            "verdict": found.verdict._asdict(),
            "refused": [refusal._asdict() for refusal in refused],
        }
        presentation.write(body)
    else:
        head = f"release {kept.seq}, {kept.model} {kept.version}, judged by {kept.approved_by}: {kept.reason}"
        console.out.print(head, markup=False)
        for refusal in refused:
            console.out.print(f"[bold]refused[/]: {refusal.reason}: {refusal.detail}. Needed: {refusal.needed}")
        console.out.print(progress.sentence(f"{found.currency} per decision"), markup=False, soft_wrap=True)
        why = "; ".join(found.verdict.reasons)
        console.out.print(f"{found.verdict.decision}: {why}", markup=False, soft_wrap=True)
    sys.exit(REFUSED if refused else 0)
