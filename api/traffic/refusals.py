"""Refusals by a limit: one error for all limits of the service, which every protocol answers in its own shape."""

import math
from collections.abc import Mapping
from typing import Literal

from litestar.exceptions import HTTPException


class LimitReached(HTTPException):
    """Refusal of a request by a limit of the service, before any work was done for it: 429 if the limit is the
    caller's own, 503 if it is everybody's. Nothing was recorded.

    `detail` names the limit and its number; `fix` says what to do. `wait` in seconds becomes Retry-After, in whole
    seconds. `more`: further headers of the answer. `delay`: seconds after which it is answered, for who goes on asking.
    """

    def __init__(
        self,
        status: Literal[429, 503],
        detail: str,
        fix: str,
        wait: float,
        more: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ):
        headers = {"Retry-After": str(max(1, math.ceil(wait))), **(more or {})}
        super().__init__(detail=detail, status_code=status, headers=headers)
        self.fix, self.delay = fix, delay
