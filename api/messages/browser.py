"""Messages of pages in browsers. Docstrings of these types are texts of the OpenAPI document.

A page sends everything in the body, as text/plain: a browser asks no leave for that (no preflight request), and sends
it when the page is closed, too (`navigator.sendBeacon`).
"""

import datetime as dt
import uuid
from typing import Annotated, Any

import msgspec

from api.messages.decisions import Aware, Name, Names, NudgeOut, UserId

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class BrowserDecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request of a page for a nudge. `key`: publishable; `token`: who the user is, signed by your backend.

    The decision counts only if an activation is reported: pages are closed before anything is seen. Evidence of stock
    and deadlines, and which nudges are wanted, is for backends to say.
    """

    key: Text = ""
    token: Text = ""
    user_id: UserId
    stage: Name | None = None
    context: Annotated[dict[Name, Any], msgspec.Meta(max_length=200)] = {}
    exclude: Names = []
    consent: Annotated[dict[Name, bool], msgspec.Meta(max_length=20)] = {}
    decision_id: uuid.UUID | None = None


class BrowserDecisionReply(msgspec.Struct, frozen=True, kw_only=True):
    """The nudge that a page shows. `moment`, where the journey was asked: the one that holds, null for "not now"."""

    decision_id: uuid.UUID
    stage: str
    nudge: NudgeOut
    expires_at: dt.datetime
    duplicate: bool = False
    moment: str | msgspec.UnsetType | None = msgspec.UNSET


class BrowserEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the user did on a page."""

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    properties: dict[str, Any] = {}
    occurred_at: Aware | None = None


class BrowserEventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 50 events of one user."""

    key: Text = ""
    token: Text = ""
    user_id: UserId
    events: Annotated[list[BrowserEvent], msgspec.Meta(max_length=50)]


class BrowserActivationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Report of a page that the user really saw the nudge of a decision made for them."""

    key: Text = ""
    token: Text = ""
    user_id: UserId
    decision_id: uuid.UUID
