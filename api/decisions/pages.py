"""Pages that ask for a nudge: which nudges a page in a browser can show, and on which nothing is shown."""

from typing import NamedTuple

import msgspec

from api.messages.browser import ContentOut, ContentStep
from bandit.catalogue.content.model import PAGE_FORMATS
from bandit.catalogue.model import Catalogue, Nudge, Stage

FORMATS = frozenset(PAGE_FORMATS)
"""Formats that a page shows if it does not say which: those of journey.js. Messages and mails need another way."""

EXCLUDED = "the catalogue shows nothing on this page"
"""Reason why nothing is shown on a page that `pages.excluded` names, such as one where a card is entered."""

IMAGES = "/v1/browser/images"
"""Path under which the service serves the images of the catalogue's folder."""


class PageView(NamedTuple):
    """Page that asks: its `path`, empty if it is not known, the `formats` that it can show, and the `locale` of its
    texts, empty for that of the catalogue.
    """

    path: str = ""
    formats: frozenset[str] = FORMATS
    locale: str = ""

    def excluded(self, catalogue: Catalogue) -> str:
        """Reason why nothing is shown on this page; "" if something may be."""
        return EXCLUDED if catalogue.pages.excludes(self.path) else ""

    def shows(self, nudge: Nudge) -> bool:
        """Whether this page can show the nudge."""
        return nudge.format in self.formats

    def content(self, nudge: Nudge, fallback: str) -> ContentOut | msgspec.UnsetType:
        """Content of the nudge in the locale of this page, or the nearest that it has; UNSET for a nudge without."""
        content = nudge.content
        if isinstance(content, msgspec.UnsetType):
            return msgspec.UNSET
        locale, texts = content.in_locale(self.locale, fallback)
        image = content.image
        return ContentOut(
            locale=locale,
            title=texts.title,
            text=texts.text,
            button=texts.button,
            alt=texts.alt,
            image=image if not image or image.startswith("https://") else f"{IMAGES}/{image}",
            link=content.link,
            anchor=content.anchor,
            steps=[ContentStep(title=step.title, text=step.text, anchor=step.anchor) for step in texts.steps],
        )

    def unfit(self, stage: Stage) -> dict[str, str]:
        """Nudges of the stage that this page cannot show, each with its reason in words."""
        return {
            name: f"format: this page shows no {nudge.format}"
            for name, nudge in stage.nudges.items()
            if not self.shows(nudge)
        }
