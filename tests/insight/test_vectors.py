"""Pictures of vectors."""

import numpy as np
import pytest

from naica.data.atom2vec import shipped
from naica.errors import InputError
from naica.insight.vectors import family, plane, similarity_map, tsne


def test_like_points_lie_together_in_the_plane() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3) * 6
    points = np.concatenate([centre + rng.normal(size=(30, 3)) * 0.3 for centre in centres])
    kind = np.repeat(np.arange(3), 30)
    place = tsne(points, steps=300)
    distance = np.linalg.norm(place[:, None] - place, axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (kind[distance.argmin(axis=1)] == kind).all()
    middles = np.array([place[kind == k].mean(axis=0) for k in range(3)])
    spread = max(np.linalg.norm(place[kind == k] - middles[k], axis=1).max() for k in range(3))
    apart = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > spread
    assert (tsne(points, steps=20) == tsne(points, steps=20)).all()
    with pytest.raises(InputError, match="4 to"):
        tsne(points[:3])


def test_pictures_of_elements_are_drawn(tmp_path) -> None:
    found = shipped()
    similarity_map(found, str(tmp_path / "map.png"))
    plane(found, [family(n) for n in found.names], str(tmp_path / "plane.svg"), {"K": "K"})
    assert (tmp_path / "map.png").stat().st_size > 20_000
    text = (tmp_path / "plane.svg").read_text()
    assert text.startswith("<?xml")


def test_families() -> None:
    assert [family(s) for s in ("K", "H", "La", "Fe", "Si", "O", "Xe")] == [
        "alkali metals",
        "hydrogen",
        "f block",
        "transition metals",
        "groups 13 and 14",
        "chalcogens",
        "noble gases",
    ]
