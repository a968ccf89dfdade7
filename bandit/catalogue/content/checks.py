"""Checks of content: placeholders that lead somewhere, links and pictures that a page may use, texts alike in every
locale. `bandit.catalogue.checks` calls them; they yield `Problem`s (path, problem, fix) and raise nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from bandit.catalogue.content import placeholders
from bandit.catalogue.content.claims import check_claims
from bandit.catalogue.content.model import Content, PagesRule, Texts
from bandit.catalogue.decoding import closest
from bandit.errors import Problem

_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")
_IMAGE = re.compile(r"[a-z0-9_.-]{1,80}\.(png|jpg|jpeg|webp|avif|svg)")
_ORIGIN = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?#][^\s\\<>\"]*)?")
_PATH = re.compile(r"/(?![/\\])[^\s\\<>\"]*")
_KINDS = {placeholders.STOCK, placeholders.DEADLINE}  # kinds of evidence, and what they say


def check_locale(path: str, locale: str) -> Iterator[Problem]:
    """A tag that is no locale."""
    if not _LOCALE.fullmatch(locale):
        yield Problem(path, f"{locale!r} is no locale", 'a language tag, such as "en", "pt-BR" or "zh-Hant-TW"')


def check_pages(path: str, pages: PagesRule) -> Iterator[Problem]:
    """Patterns that match no path, and hosts that are none."""
    for i, pattern in enumerate(pages.excluded):
        if not pattern.startswith(("/", "*")) or re.search(r"#(?!/)|\s|://", pattern):
            fix = 'a path as the address bar shows it, without host and query, such as "/checkout/card*"'
            yield Problem(f"{path}.excluded[{i}]", f"{pattern!r} matches no page", fix)
    for i, host in enumerate(pages.image_hosts):
        if not _ORIGIN.fullmatch(host):
            fix = 'https:// and the host in lower case, without a path, such as "https://img.shop.example"'
            yield Problem(f"{path}.image_hosts[{i}]", f"{host!r} is no origin", fix)


def check_image(path: str, content: Content, hosts: list[str]) -> Iterator[Problem]:
    """A picture that is neither the name of a file nor from a declared host."""
    image = content.image
    if image.startswith("https://"):
        origin = "https://" + urlsplit(image).netloc if _URL.fullmatch(image) else ""
        if not origin:
            yield Problem(f"{path}.image", f"{image!r} is no address", "an https URL without spaces")
        elif origin not in hosts:
            declared = ", ".join(hosts) or "none"
            fix = f"add {origin!r} to pages.image_hosts (declared: {declared})"
            yield Problem(f"{path}.image", f"pictures may not come from {origin}", fix)
    elif image and (not _IMAGE.fullmatch(image) or image.startswith(".")):
        fix = (
            "the name of a file in the folder images beside the catalogue: lower-case letters, digits, _, - and ., "
            "ending in .png, .jpg, .jpeg, .webp, .avif or .svg; or an https URL of a host in pages.image_hosts"
        )
        yield Problem(f"{path}.image", f"{image!r} is no usable picture", fix)


def check_payload(path: str, payload: Mapping[str, Any], evidence: str | None) -> Iterator[Problem]:
    """Claims in the texts of a payload: clients show them."""
    for place, text in placeholders.texts_in(payload, path):
        yield from check_claims(place, text, payload, evidence)


def check_content(
    path: str, content: Content, *, format_: str, payload: Mapping[str, Any], evidence: str | None
) -> Iterator[Problem]:
    """Problems of the content of a nudge with this format, payload and kind of evidence (or None)."""
    if not content.texts:
        yield Problem(f"{path}.texts", "no locale", "add texts.en with a title")
    if content.link and not (_PATH.fullmatch(content.link) or _URL.fullmatch(content.link)):
        fix = 'a path of the app that begins with one /, such as "/cart", or an https URL'
        yield Problem(f"{path}.link", f"{content.link!r} is no link that a page may follow", fix)
    yield from _check_selector(f"{path}.anchor", content.anchor)
    for locale, texts in content.texts.items():
        here = f"{path}.texts.{locale}"
        yield from check_locale(here, locale)
        yield from _check_texts(here, content, texts, format_)
        for place, text in texts.parts().items():
            yield from _check_placeholders(f"{here}.{place}", text, payload, evidence)
            yield from check_claims(f"{here}.{place}", text, payload, evidence)
        for i, step in enumerate(texts.steps):
            yield from _check_selector(f"{here}.steps[{i}].anchor", step.anchor)
    yield from _check_alike(path, content)


def _check_selector(path: str, selector: str) -> Iterator[Problem]:
    if re.search(r"[{}<;\n]", selector) or selector != selector.strip():
        yield Problem(path, f"{selector!r} is no CSS selector", 'such as "#size" or ".cart > button"')


def _check_texts(path: str, content: Content, texts: Texts, format_: str) -> Iterator[Problem]:
    if content.link and not texts.button:
        yield Problem(f"{path}.button", "missing, but there is a link", "add what the button says, or remove the link")
    if texts.alt and not content.image:
        yield Problem(f"{path}.alt", "there is no picture", "add content.image, or remove it")
    if texts.steps and format_ != "walkthrough":
        yield Problem(f"{path}.steps", f"a {format_} has no steps", 'format = "walkthrough", or remove them')
    if format_ == "walkthrough" and not texts.steps:
        yield Problem(f"{path}.steps", "a walkthrough needs steps", 'add steps = [{ title = "…", anchor = "#…" }]')
    blank = [place for place, text in texts.parts().items() if not text.strip()]
    yield from (Problem(f"{path}.{place}", "blank", "write something, or leave it out") for place in blank)


def _check_placeholders(path: str, text: str, payload: Mapping[str, Any], evidence: str | None) -> Iterator[Problem]:
    if placeholders.has_stray_brace(text):
        yield Problem(path, "a brace that is no part of a placeholder", "write { and } only around a name")
    names = placeholders.known(payload, evidence)
    for name in placeholders.names(text):
        if name in names:
            continue
        kind = f'kind = "{name}"' if name in _KINDS else "…"
        proof = f"declare evidence = {{ {kind} }} on the nudge; " if name in placeholders.OF_EVIDENCE else ""
        yield Problem(path, f"{{{name}}} stands for nothing", proof + closest(name, names))


def _check_alike(path: str, content: Content) -> Iterator[Problem]:
    """What must be the same in every locale: numbers and countdowns, and the steps of a walkthrough."""
    if not content.texts:
        return
    shown = {locale: _evidence_in(texts) for locale, texts in content.texts.items()}
    first, *others = shown
    for locale in others:
        for name in sorted(shown[first] ^ shown[locale]):
            has, lacks = (first, locale) if name in shown[first] else (locale, first)
            problem = f"{has} has {{{name}}}, {lacks} has not"
            yield Problem(f"{path}.texts.{lacks}", problem, "use it in every locale, or in none")
        steps = len(content.texts[locale].steps)
        if steps and steps != len(content.texts[first].steps):
            problem = f"{steps} steps, {first} has {len(content.texts[first].steps)}"
            yield Problem(f"{path}.texts.{locale}.steps", problem, "the same number in every locale")


def _evidence_in(texts: Texts) -> set[str]:
    """Placeholders of evidence that these texts use."""
    used = {name for text in texts.parts().values() for name in placeholders.names(text)}
    return used & _KINDS
