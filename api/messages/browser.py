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

    `page`: the path of the page, on which the catalogue may show nothing. `formats`: what the page can show; left out,
    all that journey.js does. `locale`: of texts, such as de-AT. `evidence`: stock or deadlines, signed by your backend.
    The decision counts only if an activation is reported: pages are closed before anything is seen.
    """

    key: Text = ""
    token: Text = ""
    user_id: UserId
    stage: Name | None = None
    context: Annotated[dict[Name, Any], msgspec.Meta(max_length=200)] = {}
    exclude: Names = []
    consent: Annotated[dict[Name, bool], msgspec.Meta(max_length=20)] = {}
    decision_id: uuid.UUID | None = None
    page: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    formats: Names | None = None
    locale: Annotated[str, msgspec.Meta(max_length=35)] = ""
    evidence: Text = ""


class ContentStep(msgspec.Struct, frozen=True, kw_only=True):
    """Step of a walkthrough: its words, and the CSS selector of what it points at."""

    title: str
    text: str
    anchor: str


class ContentOut(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a nudge in one locale. `{stock}`, `{deadline}`, `{age}` and names of the payload stand in the texts
    for values that the page fills in. `image`: https, or a path of this service. `anchor`: CSS selector.
    """

    locale: str
    title: str
    text: str
    button: str
    alt: str
    image: str
    link: str
    anchor: str
    steps: list[ContentStep]


class EvidenceOut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Evidence that bears the nudge's claim out: units left, when the offer ends, when that was looked up."""

    stock: int | None = None
    deadline: dt.datetime | None = None
    as_of: dt.datetime | None = None


class BrowserDecisionReply(msgspec.Struct, frozen=True, kw_only=True):
    """The nudge that a page shows. `moment`, where the journey was asked: the one that holds, null for "not now". `now`
    is the service's time, by which claims hold. `content`: the nudge's words, where the catalogue has them.
    """

    decision_id: uuid.UUID
    stage: str
    nudge: NudgeOut
    expires_at: dt.datetime
    now: dt.datetime
    duplicate: bool = False
    moment: str | msgspec.UnsetType | None = msgspec.UNSET
    content: ContentOut | msgspec.UnsetType = msgspec.UNSET
    evidence: EvidenceOut | msgspec.UnsetType = msgspec.UNSET


class BrowserEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the user did on a page, `ago` seconds before it is sent: clocks of visitors are not to be relied
    on. `occurred_at` says it by a clock.
    """

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    properties: dict[str, Any] = {}
    ago: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] | None = None
    occurred_at: Aware | None = None


class BrowserEventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 50 events of one user."""

    key: Text = ""
    token: Text = ""
    user_id: UserId
    events: Annotated[list[BrowserEvent], msgspec.Meta(max_length=50)]


class BrowserEventParts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`BrowserEventRequest` with its events as bytes, which are read one by one: a bad one costs no other."""

    key: Text = ""
    token: Text = ""
    user_id: UserId
    events: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=50)]


class BrowserActivationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Report of a page that the user really saw the nudge of a decision made for them."""

    key: Text = ""
    token: Text = ""
    user_id: UserId
    decision_id: uuid.UUID
