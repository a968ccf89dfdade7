"""What MLflow runs when a published policy is loaded as a model: nothing but `experiments.mlflow.scoring` on its two
files.

Logged as code (models from code): no object is pickled, and no copy of the package travels with the model.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from experiments.mlflow import scoring


class PublishedModel(PythonModel):
    """predict(contexts) → arm, propensity, and p_<arm> for every arm."""

    def load_context(self, context: Any) -> None:
        """Read and check the two files."""
        self._live = scoring.load(Path(context.artifacts["policy"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row for each context."""
        rows = model_input.to_dict(orient="records")
        return pd.DataFrame(scoring.score(self._live, rows, params or {}))


set_model(PublishedModel())
