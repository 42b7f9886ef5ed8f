"""Training of Hamiltonian networks: from a set of matrices to a model with its card, resumable after any kill.

The loss is the mean of an L1 and a root-mean-square error, taken apart for on-site blocks and for pairs, so that the many weak pairs do not
drown the few strong blocks; in eV, over orbitals that exist. μ S is taken out of every structure first. What spin–orbit coupling adds is a
term of its own, for it is small. SchNOrb may learn S, energies and forces in the same run, each with a weight.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naica.errors import ConfigError, InputError, RunError
from naica.graphs.batch import Batch
from naica.hamiltonian.basis import Basis
from naica.hamiltonian.graphs import Sample, joined, sample
from naica.hamiltonian.layout import BlockLayout
from naica.hamiltonian.matrices import OrbitalMatrices
from naica.hamiltonian.model import HamiltonianModel, turned_blocks
from naica.hamiltonian.spinors import time_reversal_error
from naica.hamiltonian.two_centre import PairTable, TwoCentre
from naica.training.average import RunningMean
from naica.training.config import inside
from naica.training.history import History
from naica.training.schedule import rate

FORMAT = 1
CARD, WEIGHTS, STATE = "card.json", "weights.safetensors", "state.pt"


@dataclass(frozen=True)
class HamiltonianConfig:
    """Settings of a training run.

    Parameters
    ----------
    architecture, architecture_config : the backbone and its settings
    on_h0 : learn what is left of H after the Hamiltonian of superposed atomic densities (then every structure must bring it along)
    epochs, batch_size : passes, and structures per step
    learning_rate, weight_decay, clip : of AdamW; the rate rises for 5 % of the run and falls by a cosine
    ema : decay per step of the mean weights that are judged and kept
    max_cpu_seconds : budget; the schedule ends within it
    validation : share of the training structures that chooses the weights to keep
    augment : turn every structure at random in every epoch, for networks that are not equivariant (``schnorb``)
    overlap_weight, energy_weight, forces_weight : of S (per unit), energies (per atom, eV) and forces (eV/Å) beside H; above 0 only for
        ``schnorb``, whose paper gives energies a tenth and forces nine
    seed : of everything drawn
    """

    architecture: str = "deeph2"
    architecture_config: Mapping[str, Any] = field(default_factory=dict)
    on_h0: bool = False
    epochs: int = 300
    batch_size: int = 4
    learning_rate: float = 4e-3
    weight_decay: float = 1e-5
    clip: float = 5.0
    ema: float = 0.99
    max_cpu_seconds: float | None = None
    validation: float = 0.1
    augment: bool = False
    overlap_weight: float = 0.0
    energy_weight: float = 0.0
    forces_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        inside("epochs", self.epochs, 1, 10**7)
        inside("batch_size", self.batch_size, 1, 10**6)
        inside("learning_rate", self.learning_rate, 1e-9, 10.0)
        inside("ema", self.ema, 0.0, 0.999999)
        inside("validation", self.validation, 0.0, 0.9)
        for name in ("overlap_weight", "energy_weight", "forces_weight"):
            inside(name, getattr(self, name), 0.0, 1e6)

    @property
    def energies(self) -> bool:
        """Whether energies or forces are learned."""
        return self.energy_weight > 0 or self.forces_weight > 0


@dataclass(frozen=True)
class Fitted:
    """A trained model, its history (rows by epoch) and where it stands."""

    model: HamiltonianModel
    rows: list[dict[str, float]]
    folder: Path | None


def brought_to_zero(matrices: OrbitalMatrices, on_h0: bool) -> OrbitalMatrices:
    """The matrices with μ S taken out of H."""
    return matrices.shifted(matrices.gauge("H", "H0" if on_h0 else None))


def fit(
    matrices: Sequence[OrbitalMatrices],
    config: HamiltonianConfig | None = None,
    folder: str | Path | None = None,
    *,
    start: HamiltonianModel | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
    told: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train on some structures.

    Parameters
    ----------
    matrices : of the training part; a share of them is kept apart to choose weights by
    config : settings
    folder : for the model and the state of the run; the same call goes on where it was killed. None keeps nothing
    start : fine-tune from this model: its network and its tables
    progress : called with each epoch's row
    told : what else the card should say, for example the split of the set

    Raises
    ------
    InputError
        If there are no structures, they lack H₀, energies or forces where these are asked for, or are magnets.
    ConfigError
        If the folder holds a run of other settings.
    RunError
        If the loss is not a number any more.
    """
    c = config or HamiltonianConfig()
    if not matrices:
        raise InputError("no structures to train on; expected at least one")
    if c.on_h0 and any("H0" not in m.blocks for m in matrices):
        raise InputError("on_h0 needs the Hamiltonian of superposed atomic densities with every structure; make the set with h0 = true")
    if len({m.spin for m in matrices}) > 1:
        raise InputError("some structures have spin–orbit coupling and some have none; expected one kind")
    if matrices[0].spin and (worst := max(time_reversal_error(m) for m in matrices)) > 1e-2:
        raise InputError(f"time turned back changes H by {worst:.2g} eV: a magnet; networks with spin are for matter that is none")
    torch.manual_seed(c.seed)
    ready = [brought_to_zero(m, c.on_h0) for m in matrices]
    model = _model(ready, c, start)
    samples = [
        sample(m, model.cutoff, model.layout, m.blocks["H"] - model.base(m), overlap=model.overlaps, energy=model.energies) for m in ready
    ]
    order = np.random.default_rng(c.seed).permutation(len(samples))
    kept = round(c.validation * len(samples)) if len(samples) > 4 else 0
    train, validation = [samples[k] for k in order[kept:]], [samples[k] for k in order[:kept]]
    if start is None:
        model.scale_to(train)
    place = None if folder is None else Path(folder)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        _agree(place / "config.json", c, len(matrices))
    run = _Run(model, c, train, validation, place, progress)
    run.go()
    if place is not None:
        save(
            model,
            place,
            {
                "metrics": run.best_row(),
                "structures": len(matrices),
                "config": _plain(c),
                "level": str(matrices[0].level or ""),
                "source": dict(matrices[0].info),
                **(told or {}),
            },
        )
    return Fitted(model, run.rows, place)


def _model(ready: Sequence[OrbitalMatrices], c: HamiltonianConfig, start: HamiltonianModel | None) -> HamiltonianModel:
    if start is None:
        return _fresh(ready, c)
    if start.on_h0 != c.on_h0:
        raise ConfigError(f"the model to start from was trained with on_h0 = {start.on_h0}; use the same")
    known = {int(z) for m in ready for z in m.crystal.numbers}
    if missing := known - set(start.layout.basis):
        from naica.structure.elements import symbol

        raise InputError(f"the model to start from does not know {', '.join(symbol(z) for z in sorted(missing))}")
    if start.layout.spin != ready[0].spin:
        raise ConfigError("the model to start from and the set must both have spin–orbit coupling, or both not")
    outputs = {"spin": start.layout.spin, "energies": start.energies, "overlaps": start.overlaps}
    model = HamiltonianModel(start.architecture, start.architecture_config, start.baseline, start.overlap, start.on_h0, **outputs)
    model.load_state_dict(start.state_dict())
    return model


def _fresh(ready: Sequence[OrbitalMatrices], c: HamiltonianConfig) -> HamiltonianModel:
    if c.on_h0:
        rest = [m.with_blocks(H=m.blocks["H"] - m.blocks["H0"]) for m in ready]
        baseline = TwoCentre.fit(rest, "H")
    else:
        baseline = TwoCentre.fit(ready, "H")
    overlap = None if ready[0].orthogonal else TwoCentre.fit(ready, "S")
    outputs = {"spin": ready[0].spin, "energies": c.energies, "overlaps": c.overlap_weight > 0}
    return HamiltonianModel(c.architecture, c.architecture_config, baseline, overlap, c.on_h0, **outputs)


class _Run:
    """The loop: epochs are the unit of resumption."""

    def __init__(
        self,
        model: HamiltonianModel,
        c: HamiltonianConfig,
        train: list[Sample],
        validation: list[Sample],
        folder: Path | None,
        progress: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.model, self.c, self.train, self.validation, self.folder, self.progress = model, c, train, validation, folder, progress
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay)
        self.average = RunningMean(model, c.ema)
        self.history = History(folder, False)
        self.rows: list[dict[str, float]] = []
        self.epoch, self.spent, self.best = 0, 0.0, float("inf")
        self.kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if folder is not None and (folder / STATE).exists():
            self._resume(folder / STATE)

    def go(self) -> None:
        """All epochs that are left; the best mean weights end up in the model."""
        steps = -(-len(self.train) // self.c.batch_size)
        while self.epoch < self.c.epochs and self._share(0, steps) < 1:
            begun = time.process_time()
            torch.manual_seed(self.c.seed * 100_003 + self.epoch)
            order = torch.randperm(len(self.train)).tolist()
            total = 0.0
            self.model.train()
            for step in range(steps):
                chosen = joined([self.train[k] for k in order[step * self.c.batch_size : (step + 1) * self.c.batch_size]])
                if self.c.augment:
                    chosen = turned_sample(chosen, self.model.layout)
                share = self._share(step, steps, time.process_time() - begun)
                for group in self.optimiser.param_groups:
                    group["lr"] = self.c.learning_rate * rate(share, "one-cycle", 0.05)
                self.optimiser.zero_grad(set_to_none=True)
                loss = loss_of(self.model, chosen, self.c)
                if not torch.isfinite(loss):
                    raise RunError(
                        f"the loss is not a number any more in epoch {self.epoch + 1}; lower learning_rate ({self.c.learning_rate:g})"
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.c.clip)
                self.optimiser.step()
                self.average.update()
                total += float(loss.detach())
            self.epoch += 1
            self._judge(total / steps, begun)
        self.model.load_state_dict(self.kept)
        self.model.eval()
        self.history.close()

    def best_row(self) -> dict[str, float]:
        """The row whose weights were kept."""
        return min(self.rows, key=lambda r: r.get("judged", r["validation"])) if self.rows else {}

    def _judge(self, loss: float, begun: float) -> None:
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        mean = self.average.state()
        self.model.load_state_dict(mean)
        error = mean_error(self.model, self.validation or self.train)
        beside = other_errors(self.model, self.validation or self.train)
        self.model.load_state_dict(own)
        self.spent += time.process_time() - begun
        judged = error + self.c.forces_weight * beside.get("forces", 0.0) + self.c.energy_weight * beside.get("energy", 0.0)
        if judged < self.best:
            self.best, self.kept = judged, {k: v.clone() for k, v in mean.items()}
        row = {"epoch": float(self.epoch), "loss": loss, "validation": error, "best": self.best, "seconds": self.spent}
        if beside:
            row |= {**beside, "judged": judged}
        self.rows.append(row)
        self.history.write(row)
        if self.folder is not None:
            self._save(self.folder / STATE)
        if self.progress is not None:
            self.progress(row)

    def _share(self, step: int, steps: int, running: float = 0.0) -> float:
        by_epochs = (self.epoch + step / steps) / self.c.epochs
        by_time = (self.spent + running) / self.c.max_cpu_seconds if self.c.max_cpu_seconds else 0.0
        return min(1.0, max(by_epochs, by_time))

    def _save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.mean,
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "kept": self.kept,
            "epoch": self.epoch,
            "spent": self.spent,
            "best": self.best,
            "rows": self.rows,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.restore(state["average"], state["average_steps"])
            self.optimiser.load_state_dict(state["optimiser"])
        except Exception as error:
            raise RunError(f"{path} cannot be resumed ({error}); delete it to start anew") from error
        self.kept, self.epoch, self.spent, self.best, self.rows = (state[k] for k in ("kept", "epoch", "spent", "best", "rows"))
        self.history.rewind(self.rows)


def loss_of(model: HamiltonianModel, s: Sample, c: HamiltonianConfig | None = None) -> Tensor:
    """The loss of one joined sample, eV (S, energies and forces by their weights)."""
    c = c or HamiltonianConfig()
    assert s.hopping is not None
    assert s.on_site is not None
    found = model.everything(s, twice=c.energies)
    number = s.batch["number"]
    i = number[s.batch["edge_receiver"][s.there]]
    j = number[s.batch["edge_sender"][s.there]]
    masks, components = model.masks, model.layout.components
    pair = (found.pair - s.hopping).view(len(i), components, -1)
    own = (found.own - s.on_site).view(len(number), components, -1)
    loss = _apart(pair[:, :1], masks[i], masks[j]) + _apart(own[:, :1], masks[number], masks[number])
    if model.layout.spin:
        loss = loss + _apart(pair[:, 1:], masks[i], masks[j]) + _apart(own[:, 1:], masks[number], masks[number])
    if found.overlap is not None and s.overlap is not None and c.overlap_weight:
        loss = loss + c.overlap_weight * _apart((found.overlap - s.overlap)[:, None], masks[i], masks[j])
    if found.energy is not None and s.energy is not None and found.forces is not None and s.forces is not None:
        atoms = torch.bincount(s.batch["system"], minlength=s.batch.n_systems)
        if c.energy_weight:
            loss = loss + c.energy_weight * _both(((found.energy - s.energy) / atoms).to(loss.dtype))
        if c.forces_weight:
            loss = loss + c.forces_weight * _both((found.forces - s.forces).to(loss.dtype))
    return loss


def _both(error: Tensor) -> Tensor:
    """Half of L1 plus root mean square."""
    return 0.5 * (error.abs().mean() + torch.sqrt(error.square().mean() + 1e-16))


def turned_sample(s: Sample, layout: BlockLayout) -> Sample:
    """The sample with each structure turned by its own random rotation, labels with it."""
    assert s.hopping is not None
    assert s.on_site is not None
    q, r = torch.linalg.qr(torch.randn(s.batch.n_systems, 3, 3))
    q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None]
    q = q * torch.sign(torch.linalg.det(q))[:, None, None]
    system, of_edge, size = s.batch["system"], s.batch.system_of("edge"), layout.size
    vector = torch.einsum("eab,eb->ea", q[of_edge], s.batch["edge_vector"])

    def turned(labels: Tensor, turns: Tensor, own: BlockLayout) -> Tensor:
        return turned_blocks(labels.view(len(labels), own.components, size, size), turns, own).flatten(1)

    return replace(
        s,
        batch=Batch({**s.batch, "edge_vector": vector}, s.batch.degree),
        hopping=turned(s.hopping, q[of_edge[s.there]], layout),
        on_site=turned(s.on_site, q[system], layout),
        overlap=None if s.overlap is None else turned(s.overlap, q[of_edge[s.there]], BlockLayout(layout.basis)),
        forces=None if s.forces is None else torch.einsum("nab,nb->na", q[system], s.forces),
    )


def _apart(error: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Half of L1 plus root mean square over the orbitals that exist; (P, components, n²)."""
    count = error.shape[1] * (left.sum(1) * right.sum(1)).sum().clamp(min=1)
    return 0.5 * (error.abs().sum() / count + torch.sqrt(error.square().sum() / count + 1e-16))


@torch.no_grad()
def mean_error(model: HamiltonianModel, samples: Sequence[Sample], most: int = 8) -> float:
    """Mean absolute error (eV) of all elements the network corrects, pairs counted in both directions."""
    model.eval()
    total, count = 0.0, 0.0
    for k in range(0, len(samples), most):
        s = joined(samples[k : k + most])
        pair, own = model(s)
        number = s.batch["number"]
        sizes = model.masks.sum(1)
        i, j = number[s.batch["edge_receiver"][s.there]], number[s.batch["edge_sender"][s.there]]
        total += 2 * float((pair - s.hopping).abs().sum()) + float((own - s.on_site).abs().sum())
        count += model.layout.components * (2 * float((sizes[i] * sizes[j]).sum()) + float((sizes[number] ** 2).sum()))
    return total / max(count, 1.0)


def other_errors(model: HamiltonianModel, samples: Sequence[Sample], most: int = 8) -> dict[str, float]:
    """Mean absolute errors of what is learned beside H: ``overlap``, ``energy`` (eV per atom), ``forces`` (eV/Å)."""
    if not (model.energies or model.overlaps):
        return {}
    model.eval()
    sums: dict[str, list[float]] = {}
    for k in range(0, len(samples), most):
        s = joined(samples[k : k + most])
        with torch.no_grad():
            found = model.everything(s)
        atoms = torch.bincount(s.batch["system"], minlength=s.batch.n_systems)
        for name, guess, label in (
            ("overlap", found.overlap, s.overlap),
            ("energy", None if found.energy is None else found.energy / atoms, None if s.energy is None else s.energy / atoms),
            ("forces", found.forces, s.forces),
        ):
            if guess is not None and label is not None:
                error = (guess - label).abs()
                own = sums.setdefault(name, [0.0, 0.0])
                own[0] += float(error.sum())
                own[1] += float((s.overlap != 0).sum()) if name == "overlap" and s.overlap is not None else error.numel()
    return {name: total / max(count, 1.0) for name, (total, count) in sums.items()}


# --- on disk -----------------------------------------------------------------------------------------------------------
def save(model: HamiltonianModel, folder: str | Path, told: Mapping[str, Any] | None = None) -> Path:
    """Weights and tables as safetensors, the rest as a JSON card."""
    from safetensors.torch import save_file

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in model.state_dict().items()}
    tables: dict[str, Any] = {}
    for name, table in (("baseline", model.baseline), ("overlap", model.overlap)):
        if table is None:
            continue
        tables[name] = {"kind": table.kind, "error": table.error, "mean_error": table.mean_error, "pairs": [list(k) for k in table.pairs]}
        for (a, b), one in table.pairs.items():
            tensors[f"{name}.{a}.{b}.knots"] = torch.from_numpy(one.knots.copy())
            tensors[f"{name}.{a}.{b}.coefficients"] = torch.from_numpy(np.ascontiguousarray(one.coefficients))
        for z, block in table.on_site.items():
            tensors[f"{name}.{z}.own"] = torch.from_numpy(block.copy())
    card = {
        "format": FORMAT,
        "kind": "hamiltonian",
        "architecture": model.architecture,
        "architecture_config": model.architecture_config,
        "on_h0": model.on_h0,
        "outputs": {"spin": model.layout.spin, "energies": model.energies, "overlaps": model.overlaps},
        "basis": [b.to_dict() for b in model.layout.basis.values()],
        "tables": tables,
        **(told or {}),
    }
    save_file(tensors, place / WEIGHTS)
    temporary = place / f"{CARD}.tmp"
    temporary.write_text(json.dumps(card, indent=1, default=str))
    os.replace(temporary, place / CARD)
    return place


def load(folder: str | Path) -> tuple[HamiltonianModel, dict[str, Any]]:
    """A saved model and its card.

    Raises
    ------
    ConfigError
        If the folder holds no model of a Hamiltonian, or one of a newer format.
    """
    from safetensors.torch import load_file

    place = Path(folder)
    try:
        card = json.loads((place / CARD).read_text())
        tensors = load_file(place / WEIGHTS)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no model of a Hamiltonian in {place} ({error}); expected {CARD} and {WEIGHTS}") from error
    if card.get("kind") != "hamiltonian":
        raise ConfigError(f"{place} is a model of {card.get('target', {}).get('quantity', 'something else')}, not of a Hamiltonian")
    if card["format"] > FORMAT:
        raise ConfigError(f"{place} has format {card['format']}; this naica reads up to {FORMAT}: update it")
    basis = {b["number"]: Basis(b["number"], tuple(b["shells"]), b["name"], b["electrons"]) for b in card["basis"]}
    baseline, overlap = (_table(name, card["tables"].get(name), tensors, basis) for name in ("baseline", "overlap"))
    assert baseline is not None
    outputs = card.get("outputs", {})
    model = HamiltonianModel(card["architecture"], card["architecture_config"], baseline, overlap, card["on_h0"], **outputs)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    return model.eval(), card


def _table(name: str, told: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], basis: Mapping[int, Basis]) -> TwoCentre | None:
    if told is None:
        return None

    def array(key: str) -> NDArray[np.float64]:
        return np.asarray(tensors[f"{name}.{key}"].numpy(), dtype=np.float64)

    pairs = {(a, b): PairTable(array(f"{a}.{b}.knots"), array(f"{a}.{b}.coefficients")) for a, b in told["pairs"]}
    own = {z: array(f"{z}.own") for z in basis if f"{name}.{z}.own" in tensors}
    return TwoCentre(told["kind"], dict(basis), pairs, own, told["error"], told["mean_error"])


def _plain(c: HamiltonianConfig) -> dict[str, Any]:
    return {**asdict(c), "architecture_config": dict(c.architecture_config)}


def _agree(path: Path, c: HamiltonianConfig, structures: int) -> None:
    wanted = json.loads(json.dumps({**_plain(c), "structures": structures}))
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=1))
        return
    # settings that came later have their defaults in runs of before
    own = {**_plain(HamiltonianConfig()), **json.loads(path.read_text())}
    if changed := [k for k in wanted if own.get(k) != wanted[k]]:
        raise ConfigError(f"{path.parent} holds a run with other settings ({', '.join(changed)}); choose another folder, or delete it")
