"""The scenario reference: every table a scenario may hold, from the types that decode it."""

import inspect
from typing import Any

from catalogue_fields import reachable
from docutils import nodes
from parsed_markdown import parsed
from scenario_fields import section
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from simulations.scenario import Scenario


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive `scenario-reference`."""
    app.add_directive("scenario-reference", ScenarioReference)
    return {"parallel_read_safe": True}


class ScenarioReference(SphinxDirective):
    """One section for each type, in the order in which a reader meets them."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        self.env.note_dependency(inspect.getsourcefile(Scenario) or "")
        return parsed(self, "\n".join(line for struct in reachable(Scenario) for line in section(struct)))
