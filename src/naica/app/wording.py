"""Numbers, intervals, durations and lists as a person writes them. No markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NONE = "–"


def signed(value: Any, digits: int = 3, plus: bool = False) -> str:
    """A number with a true minus sign; an en dash where there is none."""
    if value is None or not math.isfinite(float(value)):
        return NONE
    shown = f"{float(value):{'+' if plus else ''}.{digits}f}"
    # −0.000 would claim a sign that the rounding ate
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")


def milli(value: Any) -> str:
    """eV/atom as meV/atom, with a digit behind the point below 10."""
    if value is None:
        return NONE
    return signed(1000 * float(value), 1 if abs(1000 * float(value)) < 10 else 0)


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return NONE if value is None else f"{int(value):,}".replace(",", "\u202f")


def percent(value: Any) -> str:
    """A share as per cent; "100 %" and "0 %" only for all and nothing."""
    if value is None:
        return NONE
    text = f"{100 * float(value):.0f} %"
    rounded_away = (text == "100 %" and value < 1) or (text == "0 %" and value > 0)
    return f"{100 * float(value):.1f} %" if rounded_away else text


def duration(seconds: Any) -> str:
    """Seconds for a person."""
    if seconds is None:
        return NONE
    left = float(seconds)
    if left < 100:
        return f"{left:.1f} s" if left < 10 else f"{left:.0f} s"
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"


def span(low: Any, high: Any) -> str:
    """An interval of shares: ``2–35 %``."""
    return NONE if low is None or high is None else f"{100 * float(low):.0f}–{100 * float(high):.0f} %"


def factors_span(low: Any, high: Any) -> str:
    """An interval of factors; beyond a hundred the number itself says nothing any more."""
    return f"{float(low):.1f} to {f'{float(high):.1f}' if float(high) <= 100 else 'more than 100'}"


def word(number: int) -> str:
    """Small numbers as words, at the beginning of a sentence."""
    words = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    return words[number] if number < len(words) else count(number)


def plural(number: int, one: str, many: str = "") -> str:
    """``1 phase``, ``2 phases``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def joined(names: Sequence[str], most: int = 4) -> str:
    """``a, b and c``, or ``a, b, c, d and 3 more``."""
    shown, left = list(names[:most]), len(names) - most
    if left > 0:
        return ", ".join(shown) + f" and {left} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
