"""The finds of a campaign, made ready to be shown: evidence in words, a picture, a scene for the viewer, the CIF to download."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from naica.app import report_text as text
from naica.app.export import file_name
from naica.app.scene import Scene, colour, gradients, make_scene, radius, svg, view_quaternion
from naica.app.wording import milli, signed

# a page of thousands of structures would not open: the best get a card with a picture, more of them a 3D view and their CIF, all a row
MOST_PICTURED = 12
MOST_DRAWN = 60
_MOST_ATOMS = 60


@dataclass(frozen=True)
class Evidence:
    """How a separation energy compares with its error bar."""

    kind: str
    text: str
    rank: int


@dataclass(frozen=True)
class Find:
    """One find as the page shows it. Energies in eV/atom."""

    id: str
    formula: str
    file: str
    round: int
    generator: str
    arm: str
    parent: Any
    spacegroup: str
    separation_energy: float | None
    sigma: float | None
    predicted: float | None
    model_sigma: float | None
    shown_value: float | None
    shown_text: str
    evidence: Evidence | None
    sentence: Any
    details: tuple[tuple[str, Any], ...]
    lineage: tuple[Mapping[str, str], ...]
    strip: Any
    picture: Any
    scene: dict[str, Any] | None
    cif_uri: str


@dataclass(frozen=True)
class Looks:
    """Colours and radii of the elements on a page, and the gradients its still pictures refer to."""

    atoms: dict[str, dict[str, Any]]
    gradients: str

    def to_dict(self) -> dict[str, Any]:
        """For the page's viewer: the elements, and the direction of the still pictures as a quaternion (x, y, z, w)."""
        return {"atoms": self.atoms, "view": view_quaternion()}


def looks(symbols: set[str]) -> Looks:
    """How the elements `symbols` look."""
    return Looks({s: {"colour": colour(s), "radius": round(radius(s), 3)} for s in sorted(symbols)}, gradients(symbols))


def prepare(summary: Mapping[str, Any]) -> list[Find]:
    """The finds in the order of the summary (best first)."""
    reach = _reach(summary["finds"])
    return [_find(raw, summary, reach, rank) for rank, raw in enumerate(summary["finds"])]


def _find(raw: Mapping[str, Any], summary: Mapping[str, Any], reach: float, rank: int) -> Find:
    from markupsafe import Markup

    by_hull = summary.get("hull") is not None
    draw = rank < MOST_DRAWN
    scene, shown_cell = _scene(raw) if draw else (None, "")
    separation, sigma = raw.get("separation_energy"), raw.get("sigma")
    value = raw.get("above_hull") if by_hull else raw.get("formation_energy")
    return Find(
        id=str(raw["id"]),
        formula=str(raw["formula"]),
        file=file_name(raw),
        round=raw["round"],
        generator=str(raw.get("generator") or "–"),
        arm=str(raw.get("arm") or "–"),
        parent=_parent(raw.get("lineage") or ()),
        spacegroup=str(raw.get("spacegroup") or "–"),
        separation_energy=separation,
        sigma=sigma,
        predicted=raw.get("predicted"),
        model_sigma=raw.get("model_sigma"),
        shown_value=value,
        shown_text=milli(value) if by_hull else signed(value, 3),
        evidence=_evidence(separation, sigma) if by_hull else None,
        sentence=text.evidence_sentence(raw, summary),
        details=tuple(_details(raw, summary, shown_cell)),
        lineage=tuple(raw.get("lineage") or ()),
        strip=Markup(_strip(separation, sigma, reach)) if by_hull and separation is not None else "",
        picture=Markup(svg(scene)) if scene and rank < MOST_PICTURED else "",
        scene=scene.to_dict() if scene else None,
        cif_uri=_cif_uri(raw["cif"]) if draw and raw.get("cif") else "",
    )


def _evidence(separation: float | None, sigma: float | None) -> Evidence | None:
    if separation is None:
        return None
    if not sigma:
        return Evidence("", "error bar unknown", 1)
    depth = -separation / sigma
    if depth >= 2:
        return Evidence("clear", f"clear: {depth:.1f} σ", 3)
    if depth >= 1:
        return Evidence("likely", f"likely: {depth:.1f} σ", 2)
    return Evidence("open", "within the error bar", 0)


def _parent(lineage: Sequence[Mapping[str, str]]) -> Any:
    """The step before the find: a prototype by its name, a compound by its formula."""
    from markupsafe import Markup

    from naica.app.report import formula

    if len(lineage) < 2:
        return ""
    step = lineage[1]
    if str(step.get("id", "")).startswith("prototype:"):
        return f"as {step['formula']}"
    return Markup("from {}").format(formula(step["formula"]))


def _details(raw: Mapping[str, Any], summary: Mapping[str, Any], shown_cell: str) -> list[tuple[str, Any]]:
    from naica.app.report import formula, spacegroup

    by_hull = summary.get("hull") is not None
    rows: list[tuple[str, Any]] = []
    if by_hull:
        rows.append(("Separation energy", f"{milli(raw.get('separation_energy'))} meV/atom" + _plus_minus(raw.get("sigma"))))
        rows.append(("Above the hull", f"{milli(raw.get('above_hull'))} meV/atom"))
        rows.append(("Formation energy", f"{signed(raw.get('formation_energy'), 3)} eV/atom"))
    else:
        rows.append(("Value", f"{signed(raw.get('formation_energy'), 3)} eV/atom"))
    predicted = signed(raw.get("predicted"), 3)
    rows.append(("Predicted before", predicted + (f" ± {raw['model_sigma']:.3f}" if raw.get("model_sigma") else "") + " eV/atom"))
    if raw.get("competing"):
        rows.append(("Competing phases", text.mixture(raw["competing"], formula)))
    rows.append(("Generator", f"{raw.get('generator') or '–'}, round {raw['round']}, arm {raw.get('arm') or '–'}"))
    rows.append(("Space group", spacegroup(raw.get("spacegroup"))))
    if raw.get("prototype"):
        rows.append(("Prototype", raw["prototype"]))
    if raw.get("novelty") or raw.get("known") is not None:
        rows.append(("Novelty", raw.get("novelty") or ("known" if raw["known"] else "not among the known ones")))
    rows.append(("Level of theory", raw.get("level") or summary.get("level") or "unknown"))
    rows += text.second_opinions(raw, summary)
    rows += text.provenance(raw, summary)
    if shown_cell:
        rows.append(("Picture", shown_cell))
    return rows


def _plus_minus(sigma: float | None) -> str:
    return f" ± {milli(sigma)} (1 σ)" if sigma else ""


def _cif_uri(cif: str) -> str:
    return "data:chemical/x-cif;base64," + base64.b64encode(cif.encode()).decode()


# --- pictures ----------------------------------------------------------------------------------------------------------------------
def _scene(raw: Mapping[str, Any]) -> tuple[Scene | None, str]:
    """What to draw, and which cell that is: the conventional one where it is small enough to be read."""
    atoms = raw.get("crystal")
    if not atoms or not all(atoms.get("pbc", (True, True, True))):
        return None, ""
    from naica.structure import Crystal
    from naica.structure.symmetry import symmetry

    crystal = Crystal(atoms["numbers"], atoms["positions"], atoms["cell"])
    conventional = symmetry(crystal).conventional
    if len(conventional) <= _MOST_ATOMS:
        return make_scene(conventional.numbers, conventional.positions, conventional.cell), f"conventional cell, {len(conventional)} atoms"
    return make_scene(crystal.numbers, crystal.positions, crystal.cell), f"cell as computed, {len(crystal)} atoms"


def _reach(finds: Sequence[Mapping[str, Any]]) -> float:
    """Deepest separation energy with its error bar: the common scale of all strips."""
    return max([0.02, *(-(f["separation_energy"]) + (f.get("sigma") or 0) for f in finds if f.get("separation_energy") is not None)])


def _strip(separation: float, sigma: float | None, reach: float) -> str:
    """A bar from the competing phases (left line) to the find, with its error bar; the same scale for all finds of a page."""
    width, start, middle = 300, 8, 11
    scale = (width - 2 * start) / (1.12 * reach)
    depth = max(0.0, -separation) * scale
    parts = [
        f'<line class="zero" x1="{start}" x2="{start}" y1="1" y2="21"/>',
        f'<rect class="depth" x="{start}" y="7" width="{depth:.1f}" height="8" rx="2"/>',
    ]
    if sigma:
        low, high = max(start - 7.0, start + depth - sigma * scale), min(width - 1.0, start + depth + sigma * scale)
        parts.append(
            f'<path class="bar" fill="none" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
        )
    label = f"{-1000 * separation:.0f} meV per atom below its competing phases"
    return f'<svg class="strip" viewBox="0 0 {width} 22" preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(parts)}</svg>'
