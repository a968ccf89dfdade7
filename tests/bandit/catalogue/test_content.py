"""Content of nudges: what is wrong with it is named with its path and fix; texts come in the reader's locale."""

import msgspec
import pytest

from bandit.catalogue.content.model import PAGE_FORMATS, Content, PagesRule, Texts
from bandit.catalogue.loading import parse, read_shipped, shipped
from bandit.catalogue.model import Nudge
from bandit.errors import CatalogueError, Problem

TEXT = """
app = "shop"
currency = "EUR"
locale = "en"

[pages]
excluded = ["/checkout/payment*"]
image_hosts = ["https://img.shop.example"]

[stages.cart]
reward = { kind = "binary", window = "24h", value = 10.0 }
features = { member = { type = "boolean", default = false } }

[stages.cart.nudges.low_stock]
type = "scarcity"
format = "banner"
payload = { size = "M", percent = 10, gift = true }
evidence = { kind = "stock", at_most = 5 }

[stages.cart.nudges.low_stock.content]
image = "coat.svg"
link = "/cart"
anchor = "#size"
texts.en = { title = "Only {stock} left in {size}", text = "Counted {age} ago.", button = "Keep mine", alt = "A coat" }
texts.de = { title = "Nur noch {stock} in {size}", button = "Behalten" }

[stages.cart.nudges.guide]
type = "help"
format = "walkthrough"

[stages.cart.nudges.guide.content]
texts.en = { title = "Guide", steps = [{ title = "One", anchor = "#one" }, { title = "Two" }] }
texts.de = { title = "Hilfe", steps = [{ title = "Eins" }, { title = "Zwei" }] }
"""
STOCK = "stages.cart.nudges.low_stock.content"
GUIDE = "stages.cart.nudges.guide.content"


def mistakes(text: str) -> dict[str, Problem]:
    """What `parse` says is wrong, by path."""
    with pytest.raises(CatalogueError) as caught:
        parse(text, "shop.toml")
    found = {m.field: m for m in caught.value.mistakes}
    assert len(found) == len(caught.value.mistakes), "two mistakes at one path"
    return found


def content(nudge: Nudge) -> Content:
    assert nudge.content is not msgspec.UNSET
    return nudge.content


def test_content_is_what_it_says() -> None:
    catalogue = parse(TEXT)
    assert (catalogue.locale, catalogue.pages.image_hosts) == ("en", ["https://img.shop.example"])
    found = content(catalogue.stages["cart"].nudges["low_stock"])
    assert (found.image, found.link, found.anchor, list(found.texts)) == ("coat.svg", "/cart", "#size", ["en", "de"])
    assert found.texts["de"] == Texts(title="Nur noch {stock} in {size}", button="Behalten")
    assert [step.anchor for step in content(catalogue.stages["cart"].nudges["guide"]).texts["en"].steps] == ["#one", ""]


LEFT_OUT = 'texts.de = { title = "Nur noch {stock} in {size}", button = "Behalten" }'

WRONG = [  # (what is written, what is written instead, path of the mistake, a part of the problem, a part of the fix)
    ('locale = "en"', 'locale = "english"', "locale", "'english' is no locale", "pt-BR"),
    ('"/checkout/payment*"', '"checkout"', "pages.excluded[0]", "matches no page", "/checkout/card*"),
    ('"/checkout/payment*"', '"https://a.example/b"', "pages.excluded[0]", "matches no page", "without host"),
    ('"/checkout/payment*"', '"/a#b"', "pages.excluded[0]", "matches no page", "without host and query"),
    ('excluded = ["/checkout/payment*"]', "excludes = []", "pages.excludes", "unknown key", "`excluded`?"),
    ('"https://img.shop.example"', '"img.shop.example"', "pages.image_hosts[0]", "is no origin", "https://"),
    ('"https://img.shop.example"', '"http://img.shop.example"', "pages.image_hosts[0]", "is no origin", "https://"),
    ('"https://img.shop.example"', '"https://i.example/x"', "pages.image_hosts[0]", "is no origin", "without a path"),
    ('"https://img.shop.example"', '"https://i.example; a"', "pages.image_hosts[0]", "is no origin", "https://"),
    ('"coat.svg"', '"../coat.svg"', f"{STOCK}.image", "no usable picture", "the folder images"),
    ('"coat.svg"', '".svg"', f"{STOCK}.image", "no usable picture", "the folder images"),
    ('"coat.svg"', '"coat.gif"', f"{STOCK}.image", "no usable picture", "ending in .png"),
    ('"coat.svg"', '"data:image/png,x"', f"{STOCK}.image", "no usable picture", "https URL of a host"),
    ('"coat.svg"', '"http://img.shop.example/a.png"', f"{STOCK}.image", "no usable picture", "https URL"),
    (
        '"coat.svg"',
        '"https://other.example/a.png"',
        f"{STOCK}.image",
        "not come from https://other",
        "pages.image_hosts",
    ),
    ('"coat.svg"', '"https://u@img.shop.example/a"', f"{STOCK}.image", "is no address", "https URL without spaces"),
    ('link = "/cart"', 'link = "javascript:alert(1)"', f"{STOCK}.link", "no link that a page may follow", "/cart"),
    ('link = "/cart"', 'link = "//evil.example"', f"{STOCK}.link", "no link that a page may follow", "one /"),
    ('link = "/cart"', 'link = "/\\\\evil.example"', f"{STOCK}.link", "no link that a page may follow", "one /"),
    ('link = "/cart"', 'link = "http://a.example"', f"{STOCK}.link", "no link that a page may follow", "https URL"),
    ('"#size"', '"#a{}"', f"{STOCK}.anchor", "no CSS selector", "#size"),
    ('"#one"', '"<b>"', f"{GUIDE}.texts.en.steps[0].anchor", "no CSS selector", "#size"),
    (
        'texts.de = { title = "Nur',
        'texts.DE = { title = "Nur',
        f"{STOCK}.texts.DE",
        "'DE' is no locale",
        "language tag",
    ),
    ('title = "Guide", ', "", f"{GUIDE}.texts.en.title", "missing", "add it: a text"),
    ('"Guide"', '""', f"{GUIDE}.texts.en.title", "length >= 1", "write a text"),
    ('"Guide"', '" "', f"{GUIDE}.texts.en.title", "blank", "leave it out"),
    ('"Guide"', f'"{"x" * 121}"', f"{GUIDE}.texts.en.title", "length <= 120", "write a text"),
    ('"Keep mine"', f'"{"x" * 41}"', f"{STOCK}.texts.en.button", "length <= 40", "write a text"),
    ('"Counted {age} ago."', f'"{"x" * 601}"', f"{STOCK}.texts.en.text", "length <= 600", "write a text"),
    (', { title = "Two" }', ', { title = "Two" }' * 9, f"{GUIDE}.texts.en.steps", "length <= 8", "a list"),
    (', { title = "Two" }', ', { titel = "Two" }', f"{GUIDE}.texts.en.steps[1]", "unknown field `titel`", "a list"),
    ('"Keep mine"', '"Keep {them}"', f"{STOCK}.texts.en.button", "{them} stands for nothing", "known: age, percent"),
    ('"Keep mine"', '"Keep {gift}"', f"{STOCK}.texts.en.button", "{gift} stands for nothing", "known: age, percent"),
    ('"Keep mine"', '"Keep {siez}"', f"{STOCK}.texts.en.button", "{siez} stands for nothing", "did you mean `size`?"),
    ('"Keep mine"', '"Keep {deadline}"', f"{STOCK}.texts.en.button", "{deadline} stands", 'kind = "deadline" }'),
    ('"Keep mine"', '"Keep {mine"', f"{STOCK}.texts.en.button", "a brace", "only around a name"),
    ('"Guide"', '"Guide {age}"', f"{GUIDE}.texts.en.title", "{age} stands for nothing", "evidence = { … }"),
    ('"One"', '"One {stock}"', f"{GUIDE}.texts.en.steps[0].title", "{stock} stands", 'kind = "stock" }'),
    ('button = "Keep mine", ', "", f"{STOCK}.texts.en.button", "missing, but there is a link", "remove the link"),
    ('image = "coat.svg"', "", f"{STOCK}.texts.en.alt", "there is no picture", "add content.image"),
    ("noch {stock} in", "in", f"{STOCK}.texts.de", "en has {stock}, de has not", "in every locale, or in none"),
    ('"walkthrough"', '"popup"', f"{GUIDE}.texts.en.steps", "a popup has no steps", 'format = "walkthrough"'),
    (
        '"Hilfe", steps = [{ title = "Eins" }, { title = "Zwei" }]',
        '"Hilfe"',
        f"{GUIDE}.texts.de.steps",
        "needs steps",
        "#",
    ),
    (', { title = "Zwei" }', "", f"{GUIDE}.texts.de.steps", "1 steps, en has 2", "same number in every locale"),
]


@pytest.mark.parametrize(("before", "after", "path", "problem", "fix"), WRONG)
def test_what_is_wrong_is_named_with_its_fix(before: str, after: str, path: str, problem: str, fix: str) -> None:
    assert TEXT.count(before) == 1
    found = mistakes(TEXT.replace(before, after))
    assert path in found, found
    assert problem in found[path].problem
    assert fix in found[path].fix


def test_content_without_texts_is_refused() -> None:
    (path, found), *_ = mistakes(TEXT + "[stages.cart.nudges.bare]\ntype='a'\nformat='toast'\ncontent.texts={}").items()
    assert (path, found.problem) == ("stages.cart.nudges.bare.content.texts", "no locale")
    assert "texts.en" in found.fix


def test_names_of_evidence_never_stand_for_a_payload() -> None:
    """A payload that has a `stock` of its own proves nothing."""
    text = TEXT.replace('format = "walkthrough"', 'format = "walkthrough"\npayload = { stock = 3 }')
    found = mistakes(text.replace('"Guide"', '"Guide {stock}"'))
    assert found[f"{GUIDE}.texts.en.title"].problem == "{stock} stands for nothing"


def test_a_nudge_without_content_has_the_digest_that_it_had() -> None:
    """Ledgers know a stage by its digest: what a stage does not use is no part of it."""
    bare = 'app="a"\ncurrency="EUR"\n[stages.s]\nreward={kind="binary",window="1h"}\nfeatures={}\n[stages.s.nudges]\n'
    bare += 'n={type="t",format="banner",payload={title="x"}}'
    stage = parse(bare).stages["s"]
    assert stage.digest() == "408e21136124e09ae9e969adb38c2d39"  # as computed before nudges had content
    assert "content" not in msgspec.to_builtins(stage)["nudges"]["n"]
    spoken = parse(bare.replace("payload", "content={texts={en={title='x'}}},payload")).stages["s"]
    assert spoken.digest() != stage.digest()
    assert spoken.learning_digest() == stage.learning_digest()


LOCALES = Content(texts={tag: Texts(title=tag) for tag in ("fr", "de", "pt-BR", "de-AT", "en")})


@pytest.mark.parametrize(
    ("wanted", "fallback", "got"),
    [
        ("de-AT", "en", "de-AT"),
        ("DE-at", "en", "de-AT"),
        ("de-CH", "en", "de"),
        ("de-Latn-CH", "en", "de"),
        ("pt", "en", "en"),
        ("it", "en", "en"),
        ("it", "de-CH", "de"),
        ("it", "nl", "fr"),
        ("", "", "fr"),
    ],
)
def test_texts_come_in_the_closest_locale(wanted: str, fallback: str, got: str) -> None:
    """The exact tag, its language, the fallback, the first declared."""
    assert LOCALES.in_locale(wanted, fallback) == (got, Texts(title=got))


@pytest.mark.parametrize(
    ("path", "excluded"),
    [
        ("/checkout/payment", True),
        ("/checkout/payment/3ds", True),
        ("/checkout", False),
        ("/Checkout/payment", True),
        ("/shop/checkout/payment", False),
        ("/help/card", True),
    ],
)
def test_pages_are_excluded_by_their_path(path: str, excluded: bool) -> None:
    rule = PagesRule(excluded=["/checkout/payment*", "/help/car?"])
    assert rule.excludes(path) is excluded


@pytest.mark.parametrize("app", [app for app in shipped() if app != "hillstrom"])
def test_every_nudge_that_a_page_shows_has_words_in_english_and_german(app: str) -> None:
    catalogue = parse(read_shipped(app))
    assert catalogue.pages.excluded
    nudges = [nudge for stage in catalogue.stages.values() for nudge in stage.nudges.values()]
    on_pages = [nudge for nudge in nudges if nudge.format in PAGE_FORMATS]
    assert len(on_pages) >= 8
    assert all({"en", "de"} <= content(nudge).texts.keys() for nudge in on_pages)
    assert sum("ar" in content(nudge).texts for nudge in on_pages) in (1, 2, 4)
