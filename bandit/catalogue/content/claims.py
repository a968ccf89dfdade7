"""Claims in words: texts that say what only evidence can prove, found by a list of expressions in eight languages.

Scarcity needs evidence of stock, urgency evidence of a deadline; how many there are and when it ends are said by
`{stock}` and `{deadline}`, never written out; what other people do has no evidence here. It is a list of words
(`claim_words`): it knows no other languages, no pictures, and no meaning.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from bandit.catalogue.content import claim_words, placeholders
from bandit.errors import Problem

Kind = Literal["units", "scarcity", "gone", "urgency", "times", "crowd"]


class Claim(NamedTuple):
    """Claim in a text: its kind, and the words that make it."""

    kind: Kind
    words: str


class _Rule(NamedTuple):
    """What a kind of claim says, the kinds of evidence that bear it out, and what to do without."""

    says: str
    evidence: tuple[str, ...]
    fix: str


_STOCK_NAME = rf"\{{{placeholders.STOCK}\}}"
_STOCK = 'declare evidence = { kind = "stock", at_most = 5 }'
_DEADLINE = 'declare evidence = { kind = "deadline" }'
_RULES: Mapping[Kind, _Rule] = {
    "units": _Rule("writes out how many there are", (), f"write {{stock}} and {_STOCK}"),
    "times": _Rule("writes out when it ends", (), f"write {{deadline}} and {_DEADLINE}"),
    "crowd": _Rule(
        "says what other people do, which no evidence can prove here", (), "say something that needs no proof"
    ),
    "scarcity": _Rule("says that there are few", ("stock",), f"{_STOCK} on the nudge"),
    "gone": _Rule("says that it will be gone", ("stock", "deadline"), f"{_STOCK}, or {_DEADLINE}, on the nudge"),
    "urgency": _Rule("says that it ends", ("deadline",), f"{_DEADLINE} on the nudge"),
}


def _folded(text: str) -> list[str]:
    """Each character in lower case, without accents, marks and what is invisible; every space is a plain one."""
    plain = ["".join(c for c in unicodedata.normalize("NFKD", one).casefold() if not _is_mark(c)) for one in text]
    return [" " if part.isspace() else part for part in plain]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me", "Cf") or character == "ـ"


def _compiled(expressions: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all; a space matches one or more."""
    proof = "|".join(rf"{name}\}}" for name in placeholders.OF_EVIDENCE)
    numbers = "".join(_folded(claim_words.NUMBERS))
    number = rf"(?:\d{{1,9}}(?:[.,٬٫ ]\d{{1,3}}){{0,4}}(?!\d)|\{{(?!{proof})[^{{}}]{{1,60}}\}}|(?:{numbers})(?!\w))"
    whole = "|".join("".join(_folded(one)) for one in expressions)
    whole = re.sub(" (?![?])", " +", whole).replace(" ?", " *")
    return re.compile(rf"(?<!\w)(?:{whole.replace('<n>', number).replace('<s>', _STOCK_NAME)})")


@functools.cache
def _patterns() -> Mapping[Kind, re.Pattern[str]]:
    """Patterns by kind, compiled when the first text is read: it takes a tenth of a second."""
    return {
        "units": _compiled(claim_words.UNITS),
        "times": _compiled(claim_words.TIMES),
        "crowd": _compiled(claim_words.CROWD),
        "scarcity": _compiled(claim_words.SCARCITY),
        "gone": _compiled(claim_words.GONE),
        "urgency": _compiled(claim_words.URGENCY),
    }


def claims(text: str) -> list[Claim]:
    """Claims that a text makes, by kind in the order of the patterns; the words are as they stand in the text. Words
    that one kind has found are not counted again.
    """
    folded = _folded(text.replace("’", "'").replace("‘", "'"))
    places = [i for i, part in enumerate(folded) for _ in part]
    plain = "".join(folded)
    found, taken = list[Claim](), set[int]()
    for kind, pattern in _patterns().items():
        for match in pattern.finditer(plain):
            span = set(range(*match.span()))
            if not span & taken:
                found.append(Claim(kind, text[places[match.start()] : places[match.end() - 1] + 1].strip()))
            taken |= span
    return found


def check_claims(path: str, text: str, payload: Mapping[str, Any], evidence: str | None) -> Iterator[Problem]:
    """Problem of a text (one for all its claims) whose nudge has this payload and kind of evidence, or None. What the
    payload says is filled in first: a number in it proves nothing.
    """
    wrong = [c for c in claims(placeholders.filled(text, payload)) if evidence not in _RULES[c.kind].evidence]
    if wrong:
        problem = "; ".join(f"{claim.words!r} {_RULES[claim.kind].says}" for claim in wrong)
        fixes = dict.fromkeys(_RULES[claim.kind].fix for claim in wrong)
        yield Problem(path, problem, f"{'; '.join(fixes)}; or say it without the claim")
