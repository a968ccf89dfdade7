"""Command `journey-bandit replay`: data whose outcomes are known, passed through a policy or a live service."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import msgspec
import numpy as np
from rich.markup import escape
from rich.table import Table

from bandit.arrays import Array
from bandit.errors import InvalidRequest, Problem
from journey_bandit import console
from journey_bandit.progress import progress
from simulations.datasets import classification
from simulations.live.client import ServiceClient

_MARKS = (100, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


@click.group(invoke_without_command=True)
@click.option("--csv", "file", type=click.Path(path_type=Path), help="A classification table: .csv, .data; also .gz.")
@click.option("--label", help="Column of the class: its name, or its place (1 is the first, -1 the last).")
@click.option("--header/--no-header", default=None, help="Whether the first line holds names.  [default: find out]")
@click.option("--policy", "name", default="hierarchical", type=click.Choice(classification.names()))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A hyperparameter of the policy.")
@click.option("--rounds", default=2000, show_default=True, type=click.IntRange(min=1, max=10_000_000))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="How many orders of the rows.")
@click.option("--seed", default=0, show_default=True, help="The first of them.")
@click.option("--batch", type=click.IntRange(min=1), help="Learn every so many rounds.  [default: at growth by 1 %]")
@click.option("--floor", default=0.0, show_default=True, type=click.FloatRange(0.0, 0.01), help="Least propensity.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def replay(context: click.Context, /, file: Path | None, label: str | None, as_json: bool, **given: Any) -> None:
    """Pass data whose outcomes are known through a policy.

    With --csv and --label: any classification table as a bandit, in this process. The arms are the classes; the right
    one brings 1, any other 0, and the policy learns of the arm it chose only. Printed is its cumulative regret in per
    cent of what choosing at random is expected to lose, beside that of the best constant arm, the most frequent class.
    """
    if context.invoked_subcommand is not None:
        if file is not None:
            raise click.UsageError(f"--csv goes without the command {context.invoked_subcommand}")
        return
    if file is None or label is None:
        raise click.UsageError("give --csv FILE and --label COLUMN, or a command: hillstrom")
    _classify(file, label, as_json=as_json, **given)


@replay.command()
@click.option("--url", required=True, help="The service, started with `serve --app hillstrom`.")
@click.option("--key", envvar="JOURNEY_BANDIT_KEY", default="", help="API key, unless the service runs with --dev.")
@click.option("--seed", default=100, show_default=True, help="Order of the customers.")
@click.option("--limit", type=click.IntRange(min=300), help="Only the first so many.  [default: all 32,000]")
@click.option("--mlflow", "uri", help="Log the run to this MLflow server, e.g. http://127.0.0.1:5000")
@click.option("--json", "as_json", is_flag=True, help="Print the headline metrics as JSON.")
def hillstrom(url: str, key: str, seed: int, limit: int | None, uri: str | None, as_json: bool) -> None:
    """32,000 real customers, three e-mail arms at random (MineThatData, 2008).

    Rejection replay: a decision that agrees with what the customer really received gets the real outcome; the others
    are skipped and not learned.
    """
    if uri:
        console.need_mlflow()
    with ServiceClient(url, key) as client:
        report, snapshot = console.replay_hillstrom(client, seed=seed, limit=limit)
    console.finish(report, snapshot, uri, as_json=as_json)


def _classify(
    file: Path,
    label: str,
    *,
    header: bool | None,
    name: str,
    settings: tuple[str, ...],
    rounds: int,
    seeds: int,
    seed: int,
    batch: int | None,
    floor: float,
    as_json: bool,
) -> None:
    started = perf_counter()
    table = classification.read(file, label, header=header)
    if floor * len(table.classes) >= 1.0:
        raise InvalidRequest(Problem("floor", "the floors of all classes reach 1", f"below {1 / len(table.classes):g}"))
    policy = classification.policy_named(name, len(table.classes), _pairs(settings))
    wrong, constant = [], []
    with progress(f"{name}: {file.name}", seeds) as advance:
        for s in range(seed, seed + seeds):
            wrong.append(classification.play(policy, table, rounds=rounds, seed=s, batch=batch, floor=floor))
            constant.append(classification.play_constant(table, rounds=rounds, seed=s))
            advance(1)
    found = {
        **_regret(name, np.array(wrong), len(table.classes)),
        "best_constant": {
            **_regret(f"always {table.most_frequent}", np.array(constant), len(table.classes)),
            "class": table.most_frequent,
        },
        "first_seed": seed,
        "settings": msgspec.to_builtins(policy),
        "floor": floor,
        "batch": batch or "grows by 1 %",
        "file": str(file),
        "label": table.name,
        "classes": list(table.classes),
        "rows": len(table.label),
        "columns": table.x.shape[1],
        "notes": list(table.notes),
        "seconds": round(perf_counter() - started, 3),
    }
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)


def _regret(name: str, wrong: Array, classes: int) -> dict[str, Any]:
    """The headline, from wrong (seeds, rounds): uniform is expected to be wrong in 1 − 1/K of the rounds."""
    seeds, rounds = wrong.shape
    at = np.array([n for n in _MARKS if n < rounds] + [rounds])
    regret = 100.0 * np.cumsum(wrong, axis=1)[:, at - 1] / (at * (1.0 - 1.0 / classes))  # (seeds, marks)
    last = regret[:, -1]
    return {
        "policy": name,
        "rounds": rounds,
        "seeds": seeds,
        "regret_pct_of_uniform": {
            "mean": float(last.mean()),
            "sd": float(last.std(ddof=1)) if seeds > 1 else 0.0,
            "median": float(np.median(last)),
            "per_seed": last.tolist(),
        },
        "regret_pct_after": {str(n): float(value) for n, value in zip(at, regret.mean(axis=0), strict=True)},
        "wrong_answers": wrong.sum(axis=1).astype(int).tolist(),
    }


def _show(found: dict[str, Any]) -> None:
    console.out.print(
        f"{found['file']}: {found['rows']:,} rows, label {found['label']!r} with {len(found['classes'])} classes, "
        f"{found['columns']} columns of x"
    )
    for note in found["notes"]:
        console.out.print(f"note: {note}")
    constant = found["best_constant"]
    title = "Regret, % of uniform's: 0 is always right, 100 no better than chance"
    shown = Table("rounds", found["policy"], escape(constant["policy"]), title=title, title_justify="left")
    for n, value in found["regret_pct_after"].items():
        shown.add_row(f"{int(n):,}", f"{value:.1f}", f"{constant['regret_pct_after'][n]:.1f}")
    console.out.print(shown)
    last = found["regret_pct_of_uniform"]
    each = ", ".join(f"{value:.1f}" for value in last["per_seed"][:10])
    console.out.print(
        f"after {found['rounds']:,} rounds: mean {last['mean']:.2f}, median {last['median']:.2f}, sd {last['sd']:.2f} "
        f"over {found['seeds']} orders ({each}{', …' if found['seeds'] > 10 else ''}); {found['seconds']:.1f} s"
    )


def _pairs(settings: tuple[str, ...]) -> dict[str, float | str]:
    """NAME=VALUE, each a number but for `scales`."""
    found: dict[str, float | str] = {}
    for text in settings:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = value if name.strip() == "scales" else float(value)
        except ValueError:
            raise InvalidRequest(Problem("set", f"{text!r} is not NAME=NUMBER", "e.g. --set alpha=0.3")) from None
    return found
