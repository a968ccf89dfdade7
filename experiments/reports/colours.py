"""Colours of policies in figures and pages: one policy has one colour wherever it is drawn."""

import hashlib
from collections.abc import Iterable

NONE = "#7b858e"
"""Grey, of no nudge."""

OTHERS = ("#d1495b", "#2a9d5c", "#c77d0a", "#6b4fa0", "#0f8b8d", "#b5479b", "#7a5c3e", "#5b7f00")
_FIXED = {"default": "#1b6ca8", "oracle": "#222222", "uniform": "#e0851b"}


def colours(names: Iterable[str]) -> dict[str, str]:
    """Colour of each name, as #rrggbb. No nudge is grey, and `default`, `oracle` and `uniform` have colours of their
    own. Another name takes the colour that its text gives, or the next free one where another of the names has that;
    so it is the same on every page that shows the same names.
    """
    found, taken = dict[str, str](), set[str]()
    for name in sorted(names):
        if is_none(name):
            found[name] = NONE
        elif name in _FIXED:
            found[name] = _FIXED[name]
        else:
            start = hashlib.sha256(name.encode()).digest()[0]
            order = [OTHERS[(start + n) % len(OTHERS)] for n in range(len(OTHERS))]
            found[name] = next((colour for colour in order if colour not in taken), order[0])
            taken.add(found[name])
    return found


def is_none(name: str) -> bool:
    """Whether a policy or arm of that name shows nothing."""
    return "none" in name.replace("fixed:", "").split() or name.startswith("no nudge")
