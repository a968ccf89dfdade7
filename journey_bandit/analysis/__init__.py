"""Analysis in Python and in notebooks: what `evaluate`, `evaluate table` and `simulate` compute, as objects.

    evaluate_ledger(ledger, stage)    policies on a stage of a service's ledger, with verdicts  → EvaluationResult
    evaluate_log(rounds)              policies on a log: a file, an export, a data frame        → EvaluationResult
    evaluate_table(table)             an A/B test from a table                                  → ExperimentSummary
    simulate(app)                     policies on the same simulated people                     → SimulationResult
    read_export(folder)               an export, checked against its manifest                   → LedgerExport

Figures are those of the commands, computed by the same code. A table may be a file, or any object with the Arrow
PyCapsule interface (`__arrow_c_stream__`): a table of pyarrow, a data frame of pandas or polars, a relation of DuckDB.
Every result gives one too (`polars.DataFrame(result)`, `pyarrow.table(result)`), `to_frame()` is one of pandas,
`as_dict()` the JSON object of the command, and `plot()` a figure: the difference to no nudge first, absolute values
second. What the data cannot answer is part of a result (`refused`), never an exception.

Needs `pip install 'journey-bandit[notebook]'`. ImportError, which names the extra, if a package of it is missing.
"""

from journey_bandit import own_packages

if problem := own_packages.problem():
    raise ImportError(problem)

try:
    from journey_bandit.analysis.evaluations import EvaluationResult, evaluate_ledger, evaluate_log
    from journey_bandit.analysis.exported_logs import LedgerExport, read_export
    from journey_bandit.analysis.simulations import SimulationResult, simulate
    from journey_bandit.analysis.table_tests import ExperimentSummary, evaluate_table
except ModuleNotFoundError as error:
    if error.name in ("joblib", "pyarrow"):
        message = f"{error.name} is not installed: pip install 'journey-bandit[notebook]'"
        raise ImportError(message, name=error.name) from error
    raise

__all__ = [
    "EvaluationResult",
    "ExperimentSummary",
    "LedgerExport",
    "SimulationResult",
    "evaluate_ledger",
    "evaluate_log",
    "evaluate_table",
    "read_export",
    "simulate",
]
