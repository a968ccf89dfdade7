"""The MineThatData e-mail experiment (Kevin Hillstrom, 2008): 32,000 real customers, three arms at random, each with
probability 1/3.
"""

import csv
import gzip
import importlib.resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

APP, STAGE = "hillstrom", "retention"
PROPENSITY = 1.0 / 3.0
_ARMS = {"No E-Mail": "none", "Mens E-Mail": "mens", "Womens E-Mail": "womens"}


class HillstromCustomers(NamedTuple):
    """n customers in the order of the file: the n contexts that were known of them, the arm that each was sent, and
    whether each visited the site within two weeks.
    """

    contexts: list[dict[str, Any]]
    sent: NDArray[np.str_]  # (n,) arm
    visit: NDArray[np.float64]  # (n,) 0 or 1


def load() -> HillstromCustomers:
    """The customers in the even rows of the data set, as shipped with the package; n is 32,000."""
    file = importlib.resources.files("simulations.datasets.data").joinpath("hillstrom_even_rows.csv.gz")
    with file.open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    contexts = [
        {
            "recency": int(row["recency"]),
            "history": float(row["history"]),
            "mens": row["mens"] == "1",
            "womens": row["womens"] == "1",
            "newbie": row["newbie"] == "1",
            "zip_code": row["zip_code"],
            "channel": row["channel"],
        }
        for row in rows
    ]
    sent = np.array([_ARMS[row["segment"]] for row in rows])
    return HillstromCustomers(contexts, sent, np.array([float(row["visit"]) for row in rows]))
