"""Command line `journey-bandit`: commands are loaded when they are called, so that `serve` never imports MLflow."""

import importlib
import importlib.metadata
import signal
import sys

import click

from journey_bandit import own_packages

_COMMANDS = {
    "alarms": (
        "journey_bandit.service.audit:alarms",
        "See which keys were accused of forging rewards, and say what was found out about them.",
    ),
    "backup": (
        "journey_bandit.service.backup:backup",
        "Copy the ledger to TARGET while its service runs, check the copy, then give it its name.",
    ),
    "catalogue": ("journey_bandit.service.catalogue:catalogue", "Look at a catalogue, or check your own."),
    "demo": (
        "journey_bandit.demos.demo:demo",
        "Start a service, let real and simulated people use it over HTTP, show what it learned, and log it to MLflow.",
    ),
    "erase": (
        "journey_bandit.service.people:erase",
        "Erase the person with the id USER, and all ids joined to it: decisions, outcomes, events and links.",
    ),
    "evaluate": (
        "journey_bandit.evaluation.evaluate:evaluate",
        "Estimate what policies would have earned on a log, how sure that is, and whether the log can say at all.",
    ),
    "export": (
        "journey_bandit.exports.export:export",
        "Write the decisions of a stage that an evaluation counts to the folder TO, which is made: Parquet "
        "files of so many rows and a manifest, whose digest names them.",
    ),
    "export-user": (
        "journey_bandit.service.people:export_user",
        "Print all that the ledger holds of the person with the id USER, as JSON.",
    ),
    "judge": (
        "journey_bandit.registry.judge:judge",
        "Judge VERSION: every decision is drawn from half of it and half of what decides now.",
    ),
    "keys": ("journey_bandit.service.keys:keys", "Make API keys, look at them, replace and withdraw them."),
    "ledger": ("journey_bandit.service.backup:ledger", "Move a ledger between SQLite and PostgreSQL."),
    "mcp": (
        "journey_bandit.assistants.mcp:mcp",
        "Let an assistant read a running service, over standard input and output (Model Context Protocol).",
    ),
    "monitor": (
        "journey_bandit.evaluation.monitor:monitor",
        "What the stage earns over no nudge, in the first line, and less what its holdout earns, by the "
        "decisions whose rewards are final.",
    ),
    "rebuild": (
        "journey_bandit.service.audit:rebuild",
        "Sum every stage's belief from the ledger, and compare it with (or replace) the stored one, bit for bit.",
    ),
    "power": (
        "journey_bandit.evaluation.power:power",
        "Say how many people each arm needs to find a lift; with --people, the least lift that so many find; "
        "with both, the chance to find it.",
    ),
    "preview": (
        "journey_bandit.service.preview:preview",
        "Show every nudge of a catalogue as pages show it: in each format, light and dark, left to right and "
        "right to left, narrow and wide, in every locale; with made-up evidence.",
    ),
    "nudges": (
        "journey_bandit.operations.nudges:nudges",
        "Pause, resume and retire nudges while the service runs, and see who did.",
    ),
    "traffic": (
        "journey_bandit.operations.traffic:traffic",
        "Set which share of a stage's traffic its policy decides, and which share of people gets no nudge, "
        "while the service runs.",
    ),
    "promote": (
        "journey_bandit.registry.promote:promote",
        "Approve a version: it decides once `registry sync` has brought it to the service.",
    ),
    "publish": (
        "journey_bandit.registry.publish:publish",
        "Learn a candidate from the ledger's older decisions, judge it by the newer ones, register it for review.",
    ),
    "receipt": (
        "journey_bandit.service.audit:receipt",
        "Show a decision's receipt, and recompute it from the ledger; exit status 1 if any number differs.",
    ),
    "registry": ("journey_bandit.registry.registry:registry", "Keep a service and its registry of policies together."),
    "replay": ("journey_bandit.simulation.replay:replay", "Pass data whose outcomes are known through a policy."),
    "restore": (
        "journey_bandit.service.backup:restore",
        "Check BACKUP, and put a copy of it in the place of the ledger.",
    ),
    "retract": (
        "journey_bandit.service.audit:retract",
        "Retract what an API key reported: outcomes, and outcomes of the events that it sent.",
    ),
    "review": (
        "journey_bandit.demos.review:review",
        "Make an app with a history: four versions, two promotions, one refusal, one rollback, one shadow.",
    ),
    "rollback": (
        "journey_bandit.registry.rollback:rollback",
        "Go back to the version before, or to one that was approved before: the same bytes decide again.",
    ),
    "scenario": (
        "journey_bandit.simulation.scenario_files:scenario",
        "Write, check and fit a scenario: who uses your app, and what each nudge does to them.",
    ),
    "serve": ("journey_bandit.service.serve:serve", "Serve decisions until SIGTERM."),
    "shadow": (
        "journey_bandit.registry.promote:shadow",
        'Score VERSION on live traffic without showing it ("none" ends that); with --store, print the score so far.',
    ),
    "simulate": (
        "journey_bandit.simulation.simulate:simulate",
        "Policies on simulated people, so that the value of every decision is known.",
    ),
    "stories": (
        "journey_bandit.demos.stories:stories",
        "Tell five stories against live services: what people did, which moment it was, what they were shown "
        "and why, and what the policy learned.",
    ),
    "try": ("journey_bandit.demos.try_apps:try_apps", "Start five example apps and print a link."),
    "ui": (
        "journey_bandit.registry.ui:ui",
        "Serve the runs in FOLDER until Ctrl-C, and print a link for each experiment.",
    ),
    "verdict": (
        "journey_bandit.evaluation.verdict:verdict",
        "Lift of a judged candidate over the live policy, net of costs per decision.",
    ),
    "webhooks": ("journey_bandit.service.webhooks:webhooks", "Make webhook endpoints, and see what they did not take."),
    "warm-start": (
        "journey_bandit.service.warm_start:warm",
        "Learn a table with a column for each feature, `arm` and `reward`.",
    ),
}
"""Module and name of each command, and the first sentence of its help, so that the list of all imports none of them."""


class LazyGroup(click.Group):
    """Lazy group of commands: imports a command's module when the command is needed, and says what to install if a
    package of an extra is missing.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all commands, sorted, those of extras that are not installed among them; no command's module is
        imported for the list.
        """
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Command of that name, its module imported now; None for an unknown name. A command of an extra that is not
        installed becomes one that says how to install it.
        """
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name][0].split(":")
        from bandit.policies import registry

        registry.search(importlib.metadata.entry_points)
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _unavailable(name, str(error.name))
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of all commands to `formatter`, each with the first sentence of its help; no command's module
        is imported for it.
        """
        listed = {name: click.Command(name, help=text) for name, (_, text) in _COMMANDS.items()}
        click.Group(commands=listed).format_commands(ctx, formatter)


def _unavailable(name: str, missing: str) -> click.Command:
    """Stands for a command of an extra that is not installed."""
    extra = "mcp" if name == "mcp" else "experiments"
    fix = f"{missing} is not installed: pip install 'journey-bandit[{extra}]'"

    def refuse(**_: object) -> None:
        from bandit.errors import RemoteError

        raise RemoteError(f"{name}: {fix}")

    rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(name, {"ignore_unknown_options": True}, refuse, [rest], help=fix)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="journey-bandit")
def group() -> None:
    """Learn which nudge, if any, brings a user back: one contextual bandit for each stage of the journey."""


def _terminated(*_: object) -> None:
    sys.exit(143)


def main() -> None:
    """Run the command line; errors of this project are one readable message and exit status 1. SIGTERM ends a command
    like Ctrl-C does: what it started is stopped.
    """
    if problem := own_packages.problem():
        click.echo(f"error: {problem}", err=True)
        sys.exit(1)
    from bandit.errors import JourneyBanditError

    signal.signal(signal.SIGTERM, _terminated)
    try:
        group(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (JourneyBanditError, OSError) as error:
        click.echo(f"error: {_about_file(error) or error}", err=True)
        sys.exit(1)


def _about_file(error: Exception) -> str:
    """What is wrong with a file that somebody named, and what to do; "" for other errors."""
    if not isinstance(error, OSError) or error.filename is None:
        return ""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file → look at the name and the folder"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename}: a folder → name a file"
    if isinstance(error, PermissionError):
        return f"{error.filename}: may not be read or written → look at its permissions, or name another"
    return ""


if __name__ == "__main__":
    main()
