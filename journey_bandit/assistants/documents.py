"""Pages of the documentation: listed, searched, and read by section. They are in the wheel; in a checkout, in docs/."""

import difflib
import re
from math import log
from pathlib import Path
from typing import NamedTuple

from bandit.errors import NotFound

_PACKAGED, _CHECKOUT = Path(__file__).with_name("documentation"), Path(__file__).parents[2] / "docs"
_FOLDERS = ("guides", "tutorials", "explanation")
_FILES = ("architecture.md", "glossary.md")
_HEADING = re.compile(r"^#{1,4} +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_MOST, _EXCERPT = 6_000, 240  # characters of a section, of an excerpt
_FOUND = 6
_LONG = 4_000  # characters of a section in which words count half
_TITLE_COUNTS = 5  # a word in a section's name says as much as so many in its text


class DocumentSection(NamedTuple):
    """Section of a page of the documentation: `page` as in the list of pages, its heading, and its text, which the
    heading begins.
    """

    page: str
    heading: str
    text: str


def folder() -> Path:
    """Folder that holds the pages: the packaged one, or docs/ of the checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def pages() -> dict[str, Path]:
    """{name: file} of all pages, such as "guides/monitoring"; sorted."""
    root = folder()
    files = [*(root / name for name in _FILES), *(file for name in _FOLDERS for file in (root / name).rglob("*.md"))]
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(files)}


def text_of(page: str) -> str:
    """Text of a page, in Markdown. Raises NotFound with the names that are most like it."""
    known = pages()
    if page not in known:
        like = difflib.get_close_matches(page, known, 3, 0.3)
        fix = f"{'one like ' + ', '.join(like) if like else 'another'}; `search_documentation` finds pages by words"
        raise NotFound("page", f"there is no page {page!r}", fix)
    return known[page].read_text(encoding="utf-8")


def sections(page: str) -> list[DocumentSection]:
    """Sections of a page, in order. Raises NotFound."""
    text = text_of(page)
    hidden = _FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)  # a # in a program is no heading
    starts = list(_HEADING.finditer(hidden))
    ends = [*(one.start() for one in starts[1:]), len(text)]
    return [
        DocumentSection(page, one[1], text[one.start() : end].strip()) for one, end in zip(starts, ends, strict=True)
    ]


def section(page: str, heading: str) -> str:
    """Text of one section of a page, cut at 6,000 characters, which is said; without a heading the page's first, and
    the names of the others. Raises NotFound.
    """
    every = sections(page)
    others = ", ".join(f'"{one.heading}"' for one in every[1:])
    if not heading:
        return f"{_cut(every[0].text)}\n\nOther sections of {page}: {others or 'none'}."
    for one in every:
        if one.heading.casefold() == heading.strip().lstrip("# ").casefold():
            return _cut(one.text)
    raise NotFound("section", f"{page} has no section {heading!r}", f"one of {others or every[0].heading}")


def search(words: str) -> list[DocumentSection]:
    """Sections that fit the words best, at most six, with an excerpt around the first word in place of the text. Words
    are found within longer ones, and count the more the fewer sections have them; none is found: an empty list.
    """
    wanted = {word for word in re.findall(r"\w+", words.casefold()) if len(word) > 2}  # "of" and "a" say nothing
    every = [one for page in pages() for one in sections(page)]
    found = [
        ({word: often for word in wanted if (often := _often(word, one))}, 1.0 + len(one.text) / _LONG, one)
        for one in every
    ]
    weight = {word: log(len(every) / max(sum(word in there for there, _, _ in found), 1)) for word in wanted}
    scored = [(sum(weight[w] * n for w, n in there.items()) / long, one) for there, long, one in found if there]
    best = sorted(scored, key=lambda each: (-each[0], each[1].page, each[1].heading))[:_FOUND]
    return [one._replace(text=_excerpt(one.text, wanted)) for _, one in best]


def _often(word: str, one: DocumentSection) -> float:
    """How much a section is about a word: several times, or in its name."""
    return min(one.text.casefold().count(word), 3) + _TITLE_COUNTS * (word in f"{one.page} {one.heading}".casefold())


def _excerpt(text: str, wanted: set[str]) -> str:
    body = " ".join(text.partition("\n")[2].split())
    places = [at for word in wanted if (at := body.casefold().find(word)) >= 0]
    start = max(min(places, default=0) - _EXCERPT // 4, 0)
    end = start + _EXCERPT
    return f"{'…' if start else ''}{body[start:end]}{'…' if end < len(body) else ''}"


def _cut(text: str) -> str:
    left = len(text) - _MOST
    return f"{text[:_MOST]}\n\n(cut: {left:,} characters more; the resource of the page has all)" if left > 0 else text
