"""One reader for shares, rates and probabilities, whatever the command."""

import pytest

from bandit.errors import InvalidRequest
from journey_bandit.fractions import fraction


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.25", 0.25), (".25", 0.25), ("0,25", 0.25), ("25%", 0.25), ("25 %", 0.25), ("2,5%", 0.025), ("1/4", 0.25),
     (" 1 / 3 ", 1 / 3), ("-20%", -0.2)],
)  # fmt: skip
def test_a_fraction_is_a_decimal_per_cent_or_a_division(text: str, value: float) -> None:
    assert fraction("rate", text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "part"), [("1,125%", "1,125"), ("1.125%", "1.125"), ("1,125", "1,125"), ("1/1,125", "1,125")]
)
def test_thousands_or_decimals_is_asked_and_not_guessed(text: str, part: str) -> None:
    with pytest.raises(InvalidRequest, match=f"rate: '{part}' may be one number with three decimals, or thousands"):
        fraction("rate", text)
    assert fraction("rate", "0.125") == 0.125
    assert fraction("rate", "1.1250%") == pytest.approx(0.01125)


@pytest.mark.parametrize("text", ["", "half", "1/0", "1/", "/3", "1/3/5", "inf", "1/inf", "50%%", "1/3%"])
def test_what_is_no_fraction_is_named_by_its_option(text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        fraction("rate", text)
    assert str(error.value) == f"rate: {text!r} is not a number → a number, such as 0.5, 50% or 1/2"
