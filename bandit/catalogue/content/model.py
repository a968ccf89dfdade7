"""Content of a nudge as types: its texts by locale, its picture, link and anchor, and on which pages nothing is shown.

Texts are plain: pages never read them as HTML. A placeholder such as `{stock}` stands for what evidence or payload say
(`bandit.catalogue.content.placeholders`); texts keep it, and the page fills it in.
"""

import fnmatch
import re
from typing import Annotated
from urllib.parse import unquote

import msgspec

PAGE_FORMATS = (
    "banner",
    "popup",
    "inline_widget",
    "tooltip",
    "walkthrough",
    "toast",
    "scratch_card",
    "progress_streak",
    "gamified",
)
"""Formats of nudges that pages show; `gamified` is the older word for scratch_card. Others, such as mail, reach people
elsewhere.
"""

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Passage = Annotated[str, msgspec.Meta(max_length=600)]
Label = Annotated[str, msgspec.Meta(max_length=40)]
Selector = Annotated[str, msgspec.Meta(max_length=200, examples=["#size"])]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Step of a walkthrough: its texts, and the CSS selector of the element it points to (`anchor`; none: the middle of
    the page).
    """

    title: Title
    text: Passage = ""
    anchor: Selector = ""


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Texts of a nudge in one locale.

    Fields: `button`: the call to action; without it there is none. `alt`: what the picture shows, for people who do not
    see it; empty: the picture is decoration. `steps`: of a walkthrough alone.
    """

    title: Title
    text: Passage = ""
    button: Label = ""
    alt: Annotated[str, msgspec.Meta(max_length=120)] = ""
    steps: Annotated[list[Step], msgspec.Meta(max_length=8)] = []

    def parts(self) -> dict[str, str]:
        """Texts that people read, by where they stand below the locale: "title", "steps[0].text"; no empty ones."""
        found = {"title": self.title, "text": self.text, "button": self.button, "alt": self.alt}
        for i, step in enumerate(self.steps):
            found |= {f"steps[{i}].title": step.title, f"steps[{i}].text": step.text}
        return {place: text for place, text in found.items() if text}


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of a nudge: what a page shows of it.

    Fields: `texts` by locale (a language tag: "en", "pt-BR"). `image`: the name of a file in the folder `images` beside
    the catalogue, or an https URL of a declared host. `link`: where the button leads, a path of the app ("/cart") or an
    https URL. `anchor`: the CSS selector of the element that an inline widget stands in or a tooltip points to.
    """

    texts: dict[str, Texts]
    image: str = ""
    link: str = ""
    anchor: Selector = ""

    def in_locale(self, wanted: str, fallback: str) -> tuple[str, Texts]:
        """Locale and texts for somebody who wants `wanted`: those of exactly that tag, else of its language ("de" for
        "de-AT"), else those of `fallback`, else the first declared. Tags are compared without regard to case.
        """
        declared = {tag.casefold(): tag for tag in self.texts}
        for locale in (wanted, fallback):
            tag = locale.casefold()
            while tag:
                if tag in declared:
                    return declared[tag], self.texts[declared[tag]]
                tag = tag.rpartition("-")[0]
        return next(iter(self.texts.items()))


class PagesRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pages of the app. Nothing is shown on those whose path one of `excluded` matches (`*` is any text, `?` any one
    character): where people enter a card number, for example. `image_hosts`: the origins that pictures may come from,
    besides the app's own folder.
    """

    excluded: list[str] = []
    image_hosts: list[str] = []

    def excludes(self, path: str) -> bool:
        """Whether nothing may be shown on the page with this path ("/checkout/card"), without its query. Neither case
        nor doubled slashes nor percent-encoding make it another page.
        """
        here = _plain(path)
        return any(fnmatch.fnmatchcase(here, _plain(pattern)) for pattern in self.excluded)


def _plain(path: str) -> str:
    return re.sub("/+", "/", unquote(path)).casefold()
