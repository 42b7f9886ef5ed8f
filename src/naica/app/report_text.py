"""The sentences of the report: what was found, by what evidence, how far to trust it, at what cost. No markup here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from naica.app.wording import NONE, count, duration, factors_span, joined, milli, percent, plural, signed, word

if TYPE_CHECKING:
    from naica.app.report_finds import Find

Summary = Mapping[str, Any]


# --- the head ------------------------------------------------------------------------------------------------------------------------
def subtitle(summary: Summary) -> str:
    """System, oracle, rounds and date in one line."""
    parts = ["–".join(summary.get("elements") or ()), f"oracle {summary['oracle']}", plural(summary.get("n_rounds") or 0, "round")]
    finished = summary.get("finished")
    if finished:
        parts.append(_date(finished))
    return " · ".join(p for p in parts if p)


def _date(value: Any) -> str:
    return datetime.fromtimestamp(float(value), UTC).strftime("%-d %B %Y, %H:%M UTC") if isinstance(value, int | float) else str(value)


def by_hull(summary: Summary) -> bool:
    """True if finds are judged by the campaign's own hull."""
    return bool(summary.get("hull"))


def _criterion(summary: Summary) -> str:
    limit = summary["criterion"]["threshold"]
    if by_hull(summary):
        return f"within {milli(limit)} meV/atom of the convex hull"
    return f"at or below {signed(limit, 3)} {summary['criterion'].get('unit', 'eV/atom')} in the oracle’s table"


def headline(summary: Summary, finds: Sequence[Find]) -> Any:
    """What was found, out of how many, by whose word."""
    from markupsafe import Markup

    from naica.app.report import formula

    pool = count(_sum(summary, "new") or _sum(summary, "generated"))
    base = f"{plural(_sum(summary, 'computed'), 'candidate')} computed with {summary['oracle']}, picked from {pool} generated."
    if not finds:
        return f"Nothing new was found {_criterion(summary)}. {base}"
    names = list(dict.fromkeys(f.formula for f in finds))
    shown = Markup(joined([str(formula(n)) for n in names]))
    if not by_hull(summary):
        return Markup("{} {}, among them {}. {}").format(plural(len(finds), "find"), _criterion(summary), shown, base)
    lies = "new phase lies" if len(finds) == 1 else "new phases lie"
    if not any(f.sigma for f in finds):
        return Markup("{} {} {}: {}. The oracle states no error bar. {}").format(word(len(finds)), lies, _criterion(summary), shown, base)
    clear = sum(1 for f in finds if f.evidence and f.evidence.rank == 3)
    whose = "It" if len(finds) == 1 else f"{word(clear)} of them"
    sure = f"{whose} {'does' if clear == 1 else 'do'} so by more than twice the error bar of their energies."
    if len(finds) == 1 and not clear:
        sure = "Its depth is less than twice its error bar."
    return Markup("{} {} {}: {}. {} {}").format(word(len(finds)), lies, _criterion(summary), shown, sure, base)


def _sum(summary: Summary, key: str) -> int:
    return sum(int(r.get(key) or 0) for r in summary["rounds"])


def facts(summary: Summary, finds: Sequence[Find]) -> list[dict[str, str]]:
    """The few numbers at the top."""
    picked = sum(int(r.get("picked") or r.get("computed") or 0) for r in summary["rounds"])
    hits = _sum(summary, "hits")
    out = [
        {"name": "Found", "value": count(len(finds)), "under": "on the hull now" if by_hull(summary) else "meet the criterion"},
        {
            "name": "Hit rate of all picks",
            "value": percent(hits / picked) if picked else NONE,
            "under": f"{hits} of {picked}, when computed",
        },
    ]
    recall = summary.get("recall")
    if recall:
        out.append(
            {
                "name": "Of all there are",
                "value": percent(recall["found"] / max(recall["total"], 1)),
                "under": f"random picks: {percent(recall['random_expected'] / max(recall['total'], 1))}",
            }
        )
    else:
        control = [(r.get("arms") or {}).get("control") or {} for r in summary["rounds"]]
        n, k = sum(c.get("n") or 0 for c in control), sum(c.get("hits") or 0 for c in control)
        out.append(
            {
                "name": "Hit rate at random",
                "value": percent(k / n) if n else NONE,
                "under": f"{k} of {n} in the control arm" if n else "no control arm",
            }
        )
    last = next((r["mae"] for r in reversed(summary["rounds"]) if r.get("mae") is not None), None)
    first = next((r["mae"] for r in summary["rounds"] if r.get("mae") is not None), None)
    if last is not None:
        out.append({"name": "Error of the filter", "value": f"{milli(last)}", "under": f"meV/atom, last round; first: {milli(first)}"})
    cost = summary.get("cost") or {}
    seconds = cost.get("wall_seconds", cost.get("seconds"))
    out.append({"name": "Oracle calls", "value": count(cost.get("calls")), "under": f"{duration(seconds)} in all" if seconds else ""})
    return out


_POTENTIALS = {
    "chgnet": "the universal potential CHGNet, which imitates PBE+U and was trained on relaxations of known materials",
    "emt": "effective-medium theory, a simple potential for a few metals that serves to test campaigns",
}


def care(summary: Summary, finds: Sequence[Find]) -> list[Any]:
    """What the numbers do not say."""
    from markupsafe import Markup

    from naica.app.report import formula

    oracle, level = str(summary["oracle"]), summary.get("level") or "unknown"
    out: list[Any] = []
    if oracle in _POTENTIALS:
        out.append(
            f"Energies come from {_POTENTIALS[oracle]}, not from a DFT calculation (level of theory: {level}). "
            "Its hull is not the DFT hull: a phase may change sides once it is computed properly, above all where its depth "
            "is less than the error bar."
        )
    elif oracle == "table":
        out.append(
            f"This campaign was played after the fact: the oracle is a table of published results (level of theory: {level}), "
            "so hit rates and recall are real, and nothing here is new to science."
        )
    else:
        out.append(
            f"Energies come from the oracle {oracle} (level of theory: {level}). They compare only with energies of that same level."
        )
    if by_hull(summary):
        out.append(
            f"“Stable” means {_criterion(summary)} of the phases this campaign knows: those it started from and those it computed. "
            "A phase it never looked at may lie lower. Temperature, entropy and pressure are left out."
        )
        within = list(dict.fromkeys(f.formula for f in finds if f.evidence and f.evidence.rank == 0))
        if within:
            names, them = Markup(joined([str(formula(n)) for n in within])), "it" if len(within) == 1 else "them"
            out.append(
                Markup(
                    "{}: the depth below the competing phases is smaller than the error bar. "
                    "Take {} as a question for a better calculation, not as an answer."
                ).format(names, them)
            )
    for told in summary.get("opinions") or ():
        if told["of"]:
            differ = [f["formula"] for f in told["finds"] if f["verdict"] == "only the first"]
            said = Markup(" Not {}.").format(Markup(joined([str(formula(n)) for n in differ]))) if differ else ""
            out.append(
                Markup("A second opinion, {} on a hull of its own, calls {} of {} finds stable too.{}").format(
                    told["second"], told["agree"], told["of"], said
                )
            )
    if any(not (r.get("arms") or {}).get("control", {}).get("n") for r in summary["rounds"]):
        out.append("Not every round had a control arm, so what random picks would have found is known only in part.")
    return out


# --- sections ------------------------------------------------------------------------------------------------------------------------
def finds_lede(summary: Summary, finds: Sequence[Find], cards: int) -> str:
    """What the cards show."""
    if not finds:
        return ""
    more = f" The best {cards} of {len(finds)} are drawn here; all are in the table below." if len(finds) > cards else ""
    if not by_hull(summary):
        return "Lowest first." + more
    bar = ", with the oracle’s error bar (1 σ)" if any(f.sigma for f in finds) else ""
    return (
        f"Deepest first. The bar is the energy by which a phase lies below the best mixture of the other phases{bar}; "
        f"all bars share one scale.{more}"
    )


def evidence_sentence(raw: Mapping[str, Any], summary: Summary) -> Any:
    """One find's evidence in a sentence."""
    from markupsafe import Markup

    from naica.app.report import formula

    separation, competing = raw.get("separation_energy"), raw.get("competing") or ()
    if not by_hull(summary):
        value, predicted = signed(raw.get("formation_energy"), 3), raw.get("predicted")
        told = f"The table says {value} eV/atom" + (f"; the model had said {signed(predicted, 3)}" if predicted is not None else "")
        return told + (f" ± {raw['model_sigma']:.3f}." if raw.get("model_sigma") else ".")
    if separation is None:
        return f"{milli(raw.get('above_hull'))} meV/atom above the hull of the known phases."
    bar = f" ± {milli(raw['sigma'])}" if raw.get("sigma") else ""
    against = mixture(competing, formula) if competing else "the elements"
    side = "below" if separation <= 0 else "above"
    return Markup("{}{} meV/atom {} {}.").format(milli(abs(separation)), bar, side, against)


def mixture(parts: Sequence[Mapping[str, Any]], formula: Callable[[Any], Any]) -> Any:
    """``71 % Al2O3 + 29 % MgO`` by atoms."""
    from markupsafe import Markup

    return Markup(" + ").join(
        Markup("{} % {}").format(f"{100 * p['fraction']:.0f}", formula(p["formula"])) if len(parts) > 1 else formula(p["formula"])
        for p in parts
    )


def hull_lede(summary: Summary) -> str:
    """What the hull plot shows."""
    if not by_hull(summary):
        return ""
    entries = summary["hull"]["entries"]
    stable = sum(bool(e["stable"]) for e in entries)
    start = sum(e.get("origin") == "start" for e in entries)
    return (
        f"{len(entries)} computed phases, {start} of them known at the start; {stable} lie on the hull. "
        f"All energies are of one level of theory: {summary.get('level') or 'unknown'}."
    )


def hull_caption(summary: Summary) -> str:
    """Below the hull plot."""
    n = len(summary["hull"]["elements"]) if by_hull(summary) else 0
    if n == 2:
        return (
            "Formation energy over composition. The line is the hull: phases on it are stable, the others decompose into the two phases "
            "beside them."
        )
    if n == 3:
        return (
            "The composition triangle. Stars are finds, circles were known at the start; lines join phases that coexist. Diamonds lie "
            "above the hull by the energy their colour says; those more than 0.5 eV/atom above are left out. "
            "Point at a mark for its numbers."
        )
    return "Energy above the hull against formation energy; with more than three elements the hull itself cannot be drawn."


def rounds_lede(summary: Summary) -> str:
    """What the rounds show, or what is missing."""
    if not summary["rounds"]:
        return ""
    factors = [r["enrichment"] for r in summary["rounds"] if r.get("enrichment")]
    base = f"A hit is a pick that, once computed, lay {_criterion(summary)}, as it stood when its round ended."
    if not factors:
        return base + " Enrichment over random picks cannot be given: no round had enough picks in both arms."
    best = factors[-1]
    sure = "" if best["low"] > 1 else " The interval includes 1, so these few picks alone do not prove that the filter beats chance."
    return (
        base + f" In the last round that allows it, exploiting hit {best['value']:.1f} times as often as chance "
        f"(95 % interval {factors_span(best['low'], best['high'])})." + sure
    )


def recall(summary: Summary) -> str:
    """For campaigns after the fact: share of all there is."""
    told = summary.get("recall")
    if not told:
        return ""
    looked = (
        f" after a look at {count(told['looked_at'][-1])} of {count(told['pool'])}" if told.get("looked_at") and told.get("pool") else ""
    )
    return (
        f"{count(told['found'])} of the {count(told['total'])} there are in the table were found{looked}; "
        f"as many random picks would have found about {told['random_expected']:.0f}."
    )


def filter_lede(summary: Summary) -> str:
    """What the filter is."""
    how = {
        "correct": "A trained ensemble, corrected by the campaign’s own labels (two levels of theory, declared as such and never mixed)",
        "train": "An ensemble trained on the campaign’s own labels",
    }
    who = how.get(str(summary.get("learner")), "An ensemble")
    return f"{who} judged every candidate before the oracle did. Here its predictions, made beforehand, meet the answers."


def caption(name: str, title: str) -> str:
    """The caption of a figure from the title it was given."""
    if name == "calibration":
        return (
            title[:1].upper() + title[1:] + ". " if title else ""
        ) + "Bars are the model’s calibrated 1 σ; about 68 % should reach the dashed line."
    return title


def table_lede(summary: Summary) -> str:
    """How to read the table."""
    return "Open a row for its structure, competing phases, lineage and CIF. Click a heading to sort."


def failed_lede(summary: Summary) -> str:
    """Failures in one sentence."""
    failed, calls = len(summary.get("failures") or ()), (summary.get("cost") or {}).get("calls")
    of = f" of {count(calls)}" if calls else ""
    return (
        f"{plural(failed, 'oracle call')}{of} gave no energy. A failure costs its time and is kept; it never ends a campaign."
        if failed
        else "Every oracle call gave an energy."
    )


_STAGES = {"generation": "Rejected before scoring", "parents": "Parents no generator could use", "filter": "Turned down by the filter"}


def rejections(summary: Summary) -> list[dict[str, Any]]:
    """Rejections by stage and reason, most frequent first."""
    out = []
    for stage, reasons in (summary.get("rejections") or {}).items():
        most = max(reasons.values(), default=0)
        rows = [{"reason": r, "count": n, "share": round(100 * n / most, 1)} for r, n in sorted(reasons.items(), key=lambda p: -p[1])]
        if rows:
            out.append({"title": _STAGES.get(stage, stage.capitalize()), "rows": rows})
    return out


def cost_lede(summary: Summary) -> str:
    """What the campaign cost."""
    cost = summary.get("cost") or {}
    oracle = cost.get("oracle_seconds", cost.get("seconds"))
    told = f"{plural(int(cost.get('calls') or 0), 'oracle call')} took {duration(oracle)} of computing"
    told += f" ({duration(oracle / cost['calls'])} each)" if cost.get("calls") and oracle else ""
    if cost.get("start_calls"):
        told += f", and {plural(int(cost['start_calls']), 'call')} for the phases known at the start {duration(cost.get('start_seconds'))}"
    return told + (f"; the campaign ran for {duration(cost['wall_seconds'])}." if cost.get("wall_seconds") else ".")


def timing(summary: Summary) -> dict[str, Any]:
    """Seconds per round and stage."""
    stages = list(dict.fromkeys(stage for r in summary["rounds"] for stage in (r.get("seconds") or {})))
    rows = [
        {"round": r["round"], "seconds": [(r.get("seconds") or {}).get(s) for s in stages], "sum": sum((r.get("seconds") or {}).values())}
        for r in summary["rounds"]
    ]
    return {"stages": stages, "rows": rows if stages else []}


# --- provenance ----------------------------------------------------------------------------------------------------------------------
def second_opinions(raw: Mapping[str, Any], summary: Summary) -> list[tuple[str, str]]:
    """What other levels of theory say of a find, one row each."""
    rows = []
    for told in summary.get("opinions") or ():
        mine = next((f for f in told["finds"] if f["id"] == raw["id"]), None)
        if mine is None:
            continue
        said = mine["reason"] if mine["verdict"] == "no answer" else f"{milli(mine['second_separation'])} meV/atom separation"
        rows.append((f"Second opinion, {told['oracle']}", f"{mine['verdict']}: {said} ({told['second']})"))
    return rows


def provenance(raw: Mapping[str, Any], summary: Summary) -> list[tuple[str, str]]:
    """What a find's numbers go back to: call, recipe, references, structure, codes."""
    kept = summary.get("trail") or {}
    mine = (kept.get("finds") or {}).get(str(raw["id"]))
    if mine is None:
        return []
    call, campaign = mine["call"], kept["campaign"]
    spent = f"{plural(call['attempts'], 'attempt')}, {duration(call['seconds'])}"
    rows = [("Oracle call", f"{call['id']}, round {call['round']}, {spent}, {call['finished']}")]
    recipe = mine.get("recipe") or {}
    if recipe.get("packed"):
        rows.append(("Recipe", f"{recipe.get('key', '')} = {recipe['packed']} (proposed in round {recipe['proposed_in_round']})"))
    total = f"{mine['energy']['total']:.6f} eV for {plural(mine['structure']['n_atoms'], 'atom')}"
    rows.append(("Total energy", total))
    parts = [
        f"{s}: {campaign['references'][s]['energy_per_atom']:.6f} eV/atom ({part['reference']})"
        for s, part in mine["energy"]["references"].items()
    ]
    if parts:
        rows.append(("References", "; ".join(parts)))
    rows.append(("Corrections", campaign["corrections"]))
    rows.append(("Relaxed structure", mine["structure"]["hash"]))
    codes = ", ".join(f"{name} {version}" for name, version in campaign["versions"].items())
    return [*rows, ("Codes", codes)] if codes else rows


def again_lede(summary: Summary) -> str:
    """What repeats and what does not."""
    return "The same file, seeds and versions give the same candidates and picks; energies agree as far as the oracle itself repeats."


def command(summary: Summary) -> str:
    """The command that repeats the campaign."""
    return str(summary.get("command") or f"naica discover {summary['name']}.toml")


def seeds(summary: Summary) -> str:
    """Seeds in words."""
    told = summary.get("seeds", summary.get("seed"))
    if isinstance(told, Mapping):
        return ", ".join(f"{name} {value}" for name, value in told.items())
    return joined([str(v) for v in told], 10) if isinstance(told, list | tuple) else ("not recorded" if told is None else str(told))


def when(summary: Summary) -> list[tuple[str, str]]:
    """Start and end."""
    return [(name, _date(summary[key])) for key, name in (("started", "Started"), ("finished", "Last result")) if summary.get(key)]


def toml(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """A configuration as TOML; keys without a value are left out."""
    own = [f"{key} = {_toml_value(value)}" for key, value in config.items() if value is not None and not isinstance(value, Mapping)]
    parts = ["\n".join([f"[{'.'.join(path)}]", *own] if path else own)] if own or not path else []
    parts += [toml(value, (*path, key)) for key, value in config.items() if isinstance(value, Mapping) and value]
    return "\n\n".join(p for p in parts if p)


def _toml_value(value: Any) -> str:
    import json

    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)
