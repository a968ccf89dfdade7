"""Fields of a scenario with their units, as lines of Markdown. Needs no Sphinx."""

import msgspec
from catalogue_fields import anchor, paragraphs, rows
from markdown_tables import table

LOGITS, SHARE, DAYS, HOURS = "logits", "share, 0 to 1", "days", "hours"
SLOPE = "logits per unit of the encoded feature"
UNITS = {
    "Scenario": {
        "base": "rewards a visit, above 0 and below 1",
        "spread": "logits of the position",
        "correlation": "correlation",
        "user_sd": LOGITS,
        "season": LOGITS,
        "base_slopes": SLOPE,
        "slopes": SLOPE,
        "amount": "the reward's own",
        "contexts": "the feature's own",
        "resample": "none, a number of the sample",
        "delay_hours": HOURS,
        "delay_shape": "none, a shape",
        "proof": "share of visits",
        "people_per_day": "people a day",
    },
    "Persona": {
        "weight": "share of people",
        "intent": LOGITS,
        "effects": LOGITS,
        "features": "position or share, 0 to 1",
        "harvests": "share of the persona",
    },
    "FurtherStage": {
        "base": "rewards a visit, above 0 and below 1",
        "effects": LOGITS,
        "features": "position or share, 0 to 1",
        "delay_hours": HOURS,
        "proof": "share of visits",
        "amount": "the reward's own",
        "base_slopes": SLOPE,
        "slopes": SLOPE,
        "contexts": "the feature's own",
        "stays": "share of visits with a reward",
        "otherwise": "share of visits without a reward",
    },
    "Fatigue": {
        "keeps": "share of F after a day",
        "tires": "logits per recent nudge",
        "dulls": "per recent nudge",
        "opt_out": LOGITS,
        "leaves": "share of who opts out",
    },
    "Novelty": {"rest": SHARE, "days": DAYS},
    "EffectDrift": {"sd": LOGITS, "half_life_days": DAYS, "day": DAYS, "number": "none, a number of the path"},
    "CouponHabit": {"depth": LOGITS, "learns": SHARE, "forgets": SHARE, "cap_days": DAYS},
    "VisitTiming": {
        "gap_days": DAYS,
        "gap_sd": "of the logarithm of days",
        "weekly": "relative to each other",
        "pull_forward": LOGITS,
    },
}
"""Unit of each field that holds numbers, by type and field."""


def section(struct: type[msgspec.Struct]) -> list[str]:
    """A type as lines of Markdown."""
    units = UNITS.get(struct.__name__, {})
    cells = [(field, kind, units.get(field.strip("`"), "–"), *rest) for field, kind, *rest in rows(struct)]
    head = ("field", "type", "unit", "default", "constraints")
    return [f"({anchor(struct)})=", f"## {struct.__name__}", "", *paragraphs(struct), "", *table(head, cells)]
