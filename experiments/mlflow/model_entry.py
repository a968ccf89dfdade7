"""Model entry of a published policy: what MLflow runs when the policy is loaded as a model, which is nothing but
`experiments.mlflow.scoring` on its two files.

Logged as code (models from code): no object is pickled, and no copy of the package travels with the model.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from experiments.mlflow import scoring


class PublishedModel(PythonModel):
    """MLflow's pyfunc model of a published policy: predict(contexts) → arm, propensity, and p_<arm> for every arm.
    MLflow makes and calls it.
    """

    def load_context(self, context: Any) -> None:
        """Read and check policy.json and posterior.npz of the artifact "policy". Raises SnapshotError if they are not
        what they say.
        """
        self._live = scoring.load(Path(context.artifacts["policy"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row for each context, as `scoring.score` gives it. `params`: seed and salt. Raises InvalidRequest with
        the row and the column that cannot be used.
        """
        rows = model_input.to_dict(orient="records")
        return pd.DataFrame(scoring.score(self._live, rows, params or {}))


set_model(PublishedModel())
