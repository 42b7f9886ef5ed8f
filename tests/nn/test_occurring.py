"""Elements that start from where they occur."""

import torch

from naica.models import backbone
from naica.nn.atoms import OccurringElements, element_vectors, occurrences


def test_alike_elements_start_alike() -> None:
    rows = occurrences()
    assert rows.shape == (104, 20)
    assert float(rows[0].abs().max()) == 0.0
    near = torch.nn.functional.cosine_similarity
    assert float(near(rows[19], rows[37], dim=0)) > 0.99  # K, Rb
    assert float(near(rows[19], rows[26], dim=0)) < 0.3  # K, Fe
    # the mean square is one, as a normal start would have it
    assert float(rows[26].square().mean()) == 1.0 or abs(float(rows[26].square().mean()) - 1) < 1e-5


def test_networks_can_start_from_them() -> None:
    start = element_vectors("atom2vec", 8)
    assert isinstance(start, OccurringElements)
    assert start(torch.tensor([8, 16, 8])).shape == (3, 8)
    # computed data, not weights: nothing of it is saved
    assert set(start.state_dict()) == {"linear.weight", "linear.bias"}
    assert isinstance(backbone("cgcnn", atoms="atom2vec").embedding, OccurringElements)
