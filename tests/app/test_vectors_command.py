"""The command `naica vectors`."""


def test_vectors_of_a_list_are_shown_written_and_drawn(naica, tmp_path) -> None:
    file = tmp_path / "formulas.csv"
    salts = [f"{a}{b}" for a in ("Li", "Na", "K", "Rb", "Cs") for b in ("F", "Cl", "Br", "I")]
    file.write_text("formula\n" + "\n".join([*salts, "NaN", "Na2O", "K2O", "Li2O", "MgO", "CaO"]) + "\n")
    out, plot = tmp_path / "v.csv", tmp_path / "alike.png"
    ran = naica("vectors", file, "--size", "4", "--near", "K", "--out", out, "--plot", plot, "--json")
    answer = ran.json
    assert answer["near"]["K"][0][0] in ("Na", "Li", "Rb", "Cs")
    assert answer["formulas"] == 26
    assert out.read_text().startswith("name,v1,v2,v3,v4\nLi,")
    assert plot.stat().st_size > 5000
    assert (tmp_path / "alike-plane.png").stat().st_size > 5000


def test_what_cannot_be_is_refused(naica, tmp_path) -> None:
    file = tmp_path / "formulas.csv"
    file.write_text("formula\nNaCl\n")
    assert naica("vectors", file, "--near", "Xy").code == 2
    assert naica("vectors", file, "--size", "1", "--plot", tmp_path / "alike.txt").code == 2
    assert naica("vectors", file, "--size", "30").code == 2
