"""What a campaign has learned from its rounds: hit rates by group, how errors fall with labels, and whether another round is worth it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from naica.discover.config import Stop
from naica.errors import InputError
from naica.insight.intervals import enrichment, wilson
from naica.insight.scaling import fit_power_law


@dataclass(frozen=True)
class Trial:
    """One pick and what came of it: `hit` is False too where the calculation failed."""

    round: int
    arm: str
    generator: str
    n_elements: int
    hit: bool


# --- hit rates -------------------------------------------------------------------------------------------------------------------
def rate(hits: Sequence[bool]) -> dict[str, Any]:
    """Trials, hits, their share and Wilson's 95 % interval; without trials the share is None and the interval 0 to 1."""
    n, k = len(hits), int(sum(hits))
    if not n:
        return {"n": 0, "hits": 0, "rate": None, "low": 0.0, "high": 1.0}
    found = wilson(k, n)
    return {"n": n, "hits": k, "rate": k / n, "low": found.low, "high": found.high}


def hit_rates(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Hit rates of every generator and number of elements: in each round and in all (`round` None), chosen picks beside random ones.

    Each row has `by` ("generator" or "elements"), `group`, `round`, `chosen` (exploit and explore) and `control` with n, hits, rate, low,
    high, and their `enrichment` with its interval (None without trials in one of them).
    """
    rows = []
    names: dict[str, Any] = {"generator": lambda t: t.generator, "elements": lambda t: t.n_elements}
    numbers = sorted({t.round for t in trials})
    for by, name in names.items():
        for group in sorted({name(t) for t in trials}):
            mine = [t for t in trials if name(t) == group]
            for number in (*(numbers if len(numbers) > 1 else ()), None):
                some = [t for t in mine if number is None or t.round == number]
                if not some:
                    continue
                chosen = rate([t.hit for t in some if t.arm != "control"])
                control = rate([t.hit for t in some if t.arm == "control"])
                factor = enrichment(chosen["hits"], chosen["n"], control["hits"], control["n"])
                rows.append({"by": by, "group": str(group), "round": number, "chosen": chosen, "control": control,
                             "enrichment": factor.to_dict() if factor else None})  # fmt: skip
    return rows


# --- scaling ---------------------------------------------------------------------------------------------------------------------
def scaling(labels: Sequence[float], errors: Sequence[float], confidence: float = 0.95) -> dict[str, float] | None:
    """The power law error = prefactor · labels^(−exponent) through the rounds, or None with fewer than three sizes.

    Keys: prefactor, exponent, low, high (Student's interval of the exponent, from the scatter about the line), r2, n, and `doubling`: the
    factor on the error from twice the labels. With rounds chosen by the model itself the errors are of what it chose, not of a fixed test
    set: an interval that holds 0 says that no law is seen.
    """
    from scipy.stats import t as student

    points = [(n, e) for n, e in zip(labels, errors, strict=True) if n > 0 and e > 0]
    try:
        law = fit_power_law([n for n, _ in points], [e for _, e in points])
    except InputError:
        return None
    half = float(student.ppf((1 + confidence) / 2, len(points) - 2)) * law.exponent_error
    return {
        "prefactor": law.prefactor,
        "exponent": law.exponent,
        "low": law.exponent - half,
        "high": law.exponent + half,
        "r2": law.r2,
        "n": float(len(points)),
        "doubling": 2.0**-law.exponent,
    }


def held_out_error(metrics: Mapping[str, Any]) -> float | None:
    """Mean absolute error (eV/atom) a round's model had on labels kept from it, where its card tells one."""
    for part in ("test", "val", "validation", "leave_one_out"):
        found = metrics.get(part)
        if isinstance(found, Mapping) and found.get("mae") is not None:
            return float(found["mae"])
    return None


def sentences(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What a summary's `scaling`, `hit_rates` and hulls say, a line each."""
    lines = []
    for name, law in (summary.get("scaling") or {}).items():
        if law:
            what = "picks" if name == "picks" else "labels kept from the model"
            lines.append(
                f"error on {what} ∝ labels^({-law['exponent']:+.2f}), 95 %: {-law['high']:+.2f} to {-law['low']:+.2f}, "
                f"{law['n']:.0f} rounds"
            )
    for by in ("generator", "elements"):
        rows = [r for r in summary.get("hit_rates") or () if r["by"] == by and r["round"] is None]
        parts = [
            f"{r['group']} {_counted(r['chosen'])}" + (f", at random {_counted(r['control'])}" if r["control"]["n"] else "") for r in rows
        ]
        if parts:
            lines.append(f"hits by {'number of elements' if by == 'elements' else by}: " + "; ".join(parts))
    last = (summary.get("rounds") or [{}])[-1].get("hulls")
    if last:
        lines.append(f"phases on the hull: {last['start']} at the start, {last['grown']} now")
    return tuple(lines)


def _counted(r: Mapping[str, Any]) -> str:
    return f"{r['hits']}/{r['n']}" + (f" ({r['low']:.0%}–{r['high']:.0%})" if r["n"] else "")


# --- stopping --------------------------------------------------------------------------------------------------------------------
def stop_reason(rules: Stop, rounds: Sequence[Mapping[str, Any]], calls: int, left: float | None) -> str | None:
    """Why no further round should begin, or None.

    Parameters
    ----------
    rules : the section ``[stop]``
    rounds : the finished rounds as `summary` tells them: `arms`, `mae`, `judged`
    calls : oracle calls so far, start included
    left : expected number of stable candidates among those scored and not computed, by their probabilities; None before the first round
    """
    if not rounds or len(rounds) < rules.at_least:
        return None
    if rules.calls is not None and calls >= rules.calls:
        return f"stop rule: {calls} oracle calls of at most {rules.calls}"
    if rules.hit_rate is not None:
        recent = rounds[-rules.rounds :]
        shares = [(r["arms"]["exploit"]["hits"], r["arms"]["exploit"]["n"]) for r in recent]
        if len(recent) == rules.rounds and all(n and hits / n < rules.hit_rate for hits, n in shares):
            said = ", ".join(f"{hits} of {n}" for hits, n in shares)
            return f"stop rule: hit rate below {rules.hit_rate:g} in {rules.rounds} rounds in a row ({said})"
    if rules.expected_hits is not None and left is not None and left < rules.expected_hits:
        return f"stop rule: {left:.2f} stable candidates expected among those left, fewer than {rules.expected_hits:g}"
    last = rounds[-1]
    if (
        rules.precision is not None
        and last["mae"] is not None
        and last["judged"] >= rules.precision_after
        and last["mae"] <= rules.precision
    ):
        return f"stop rule: predictions of the last round were right to {last['mae']:.4f} eV/atom (promised {rules.precision:g})"
    return None
