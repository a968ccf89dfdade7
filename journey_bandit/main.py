"""Command line `journey-bandit`: commands are loaded when they are called, so that `serve` never imports MLflow."""

import importlib
import importlib.metadata
import signal
import sys

import click

from journey_bandit import own_packages

_COMMANDS = {
    "alarms": "journey_bandit.service.audit:alarms",
    "backup": "journey_bandit.service.backup:backup",
    "catalogue": "journey_bandit.service.catalogue:catalogue",
    "demo": "journey_bandit.demos.demo:demo",
    "erase": "journey_bandit.service.people:erase",
    "evaluate": "journey_bandit.evaluation.evaluate:evaluate",
    "export": "journey_bandit.exports.export:export",
    "export-user": "journey_bandit.service.people:export_user",
    "judge": "journey_bandit.registry.judge:judge",
    "keys": "journey_bandit.service.keys:keys",
    "ledger": "journey_bandit.service.backup:ledger",
    "mcp": "journey_bandit.assistants.mcp:mcp",
    "monitor": "journey_bandit.evaluation.monitor:monitor",
    "rebuild": "journey_bandit.service.audit:rebuild",
    "power": "journey_bandit.evaluation.power:power",
    "preview": "journey_bandit.service.preview:preview",
    "nudges": "journey_bandit.operations.nudges:nudges",
    "traffic": "journey_bandit.operations.traffic:traffic",
    "promote": "journey_bandit.registry.promote:promote",
    "publish": "journey_bandit.registry.publish:publish",
    "receipt": "journey_bandit.service.audit:receipt",
    "registry": "journey_bandit.registry.registry:registry",
    "replay": "journey_bandit.simulation.replay:replay",
    "restore": "journey_bandit.service.backup:restore",
    "retract": "journey_bandit.service.audit:retract",
    "review": "journey_bandit.demos.review:review",
    "rollback": "journey_bandit.registry.rollback:rollback",
    "scenario": "journey_bandit.simulation.scenario_files:scenario",
    "serve": "journey_bandit.service.serve:serve",
    "shadow": "journey_bandit.registry.promote:shadow",
    "simulate": "journey_bandit.simulation.simulate:simulate",
    "stories": "journey_bandit.demos.stories:stories",
    "try": "journey_bandit.demos.try_apps:try_apps",
    "ui": "journey_bandit.registry.ui:ui",
    "verdict": "journey_bandit.evaluation.verdict:verdict",
    "webhooks": "journey_bandit.service.webhooks:webhooks",
    "warm-start": "journey_bandit.service.warm_start:warm",
}


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
        module, attribute = _COMMANDS[name].split(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _unavailable(name, str(error.name))
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command


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
    from bandit.policies import registry

    registry.search(importlib.metadata.entry_points)
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
