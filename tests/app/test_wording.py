import pytest

from naica.app.wording import percent


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (255 / 256, "99.6 %"), (0.0, "0 %"), (0.004, "0.4 %"), (0.253, "25 %")])
def test_all_and_nothing_are_said_of_all_and_nothing_only(share: float, text: str) -> None:
    assert percent(share) == text
