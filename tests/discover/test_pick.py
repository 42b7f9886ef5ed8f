from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from naica.discover.config import Pick
from naica.discover.pick import Option, choose


def options(n: int, seed: int = 0) -> list[Option]:
    rng = np.random.default_rng(seed)
    return [
        Option(
            f"{k:05d}",
            f"F{rng.integers(n // 3 + 1)}",
            f"P{rng.integers(5)}",
            float(rng.random()),
            float(rng.random()),
            bool(rng.random() < 0.5),
        )
        for k in range(n)
    ]


@given(st.integers(0, 60), st.integers(1, 40), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 10))
def test_laws(n: int, number: int, explore: float, control: float, seed: int) -> None:
    given_options = options(n, seed)
    config = Pick(explore=explore, control=control, per_formula=2)
    picks = choose(given_options, config, number, seed)
    by_key = {o.key: o for o in given_options}
    assert len(picks) <= number
    assert picks == choose(given_options[::-1], config, number, seed)
    assert all(by_key[k].passed for k, arm in picks.items() if arm != "control")
    judged = Counter(by_key[k].formula for k, arm in picks.items() if arm != "control")
    assert all(c <= 2 for c in judged.values())


def test_best_first_without_diversity() -> None:
    given_options = [Option(str(k), f"F{k}", "P", k / 10, 0.1, True) for k in range(10)]
    assert list(choose(given_options, Pick(explore=0, control=0, diversity=1.0), 3, 0)) == ["9", "8", "7"]


def test_diversity_prefers_another_prototype() -> None:
    given_options = [Option("a", "A", "P", 0.9, 0.1, True), Option("b", "B", "P", 0.8, 0.1, True), Option("c", "C", "Q", 0.7, 0.1, True)]
    assert list(choose(given_options, Pick(explore=0, control=0, diversity=0.5), 2, 0)) == ["a", "c"]


def test_order_survives_hundreds_of_picks() -> None:
    # with 0.7 ** 500 every plain score would be zero and the order lost
    given_options = [Option(f"{k:04d}", f"F{k}", "P", (k + 1) / 1001, 0.1, True) for k in range(1000)]
    picks = choose(given_options, Pick(explore=0, control=0, diversity=0.7), 600, 0)
    assert list(picks) == [f"{k:04d}" for k in range(999, 399, -1)]


def test_control_is_drawn_from_everything_uniformly() -> None:
    given_options = [Option(f"{k:04d}", f"F{k}", "P", float("nan"), float("nan"), False) for k in range(200)]
    counts = Counter(k for seed in range(400) for k in choose(given_options, Pick(explore=0, control=1.0), 5, seed))
    assert len(counts) == 200
    assert max(counts.values()) < 30


def test_a_second_polymorph_that_is_the_first_again_is_passed_over() -> None:
    given_options = [Option(k, "TiO2", "P", p, 0.1, True) for k, p in (("a", 0.9), ("b", 0.8), ("c", 0.7))]
    asked = []

    def same(key: str, other: str) -> bool:
        asked.append((key, other))
        return {key, other} == {"a", "b"}

    config = Pick(explore=0, control=0, diversity=1.0, per_formula=2)
    assert list(choose(given_options, config, 2, 0, same)) == ["a", "c"]
    assert asked == [("b", "a"), ("c", "a")]
    # nothing of another formula is ever compared
    asked.clear()
    choose([Option(k, k, "P", 0.5, 0.1, True) for k in "abc"], config, 3, 0, same)
    assert not asked
