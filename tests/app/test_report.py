"""The report page: whole, safe, self-contained, and right in a browser without network."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from naica.app.export import write_export
from naica.app.report import formula, render, spacegroup, write_report
from naica.errors import RunError

SECTIONS = ("finds", "hull", "rounds", "filter", "table", "failed", "cost", "provenance")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements, ids, links and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.scripts: dict[str, str] = {}
        self.text: list[str] = []
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        self.links += [(tag, k, v or "") for k, v in attrs if k in ("src", "href", "action", "data", "poster", "srcset")]
        self._script = found.get("id", "code") if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.text.append(data)

    @property
    def shown(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture
def page(summary):
    return Page(render(summary))


def test_every_section_is_there_once(page):
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert {href[1:] for tag, _, href in page.links if tag == "a" and href.startswith("#")} <= set(page.ids)


def test_nothing_comes_from_elsewhere(summary, page):
    assert not [link for link in page.links if not link[2].startswith(("#", "data:"))]
    own = Path(__file__).parents[2] / "src/naica/app/templates"
    for name in ("report.css", "report.js", "report.html.j2"):
        assert not re.search(r"(https?:)?//[a-z]|@import|url\((?!#)", (own / name).read_text().replace("// ", "").replace('"//', ""))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', render(summary)).group(1)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_is_below_seven_megabytes(summary, tmp_path):
    assert write_report(summary, tmp_path / "deep" / "report.html").stat().st_size < 7e6
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_the_viewer_comes_with_its_licence(summary):
    assert "Redistribution and use in source and binary forms" in render(summary)


def test_what_a_reader_must_know_is_said(page):
    text = page.shown
    assert "Two new phases lie within 1.0 meV/atom of the convex hull" in text
    assert "not from a DFT calculation" in text
    assert "of the phases this campaign knows" in text
    assert "smaller than the error bar" in text
    assert "−67 meV/atom ± 30 (1 σ)" in text
    assert "no answer within 300 s" in text
    assert "first look: too far above the hull" in text
    assert "naica discover mg-al-o.toml" in text
    assert 'compounds = ["MgO: rocksalt", "Al2O3: corundum"]' in text
    assert "torch 2.13.0" in text


def test_downloads_hold_the_data(summary, page):
    cifs = [base64.b64decode(v.split(",")[1]).decode() for tag, k, v in page.links if v.startswith("data:chemical/x-cif")]
    assert {f["cif"] for f in summary["finds"]} == set(cifs)
    table = next(base64.b64decode(v.split(",")[1]).decode() for *_, v in page.links if v.startswith("data:text/csv"))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [r["formula"] for r in rows] == ["MgAl2O4", "MgAl4O7"]
    assert float(rows[0]["separation_energy"]) == summary["finds"][0]["separation_energy"]


def test_figures_and_scenes_are_data(summary, page):
    figures = json.loads(page.scripts["figures"])
    assert set(figures) == {"hull", "hits", "calibration", "learning"}
    scenes = json.loads(page.scripts["scenes"])
    assert set(scenes) == {f["id"] for f in summary["finds"]}
    # spinel's conventional cell has 56 atoms; images on the faces come on top
    assert len(scenes[summary["finds"][0]["id"]]["elements"]) > 56
    looks = json.loads(page.scripts["looks"])
    assert set(looks["atoms"]) == {"Mg", "Al", "O"}


EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&amp;\'"'


def test_names_cannot_break_out(summary):
    clean = Page(render(summary))
    summary["title"] = summary["name"] = EVIL
    summary["versions"][EVIL] = EVIL
    summary["rejections"]["filter"][EVIL] = 3
    summary["rejections"][EVIL] = {EVIL: 1}
    summary["failures"][0].update(formula=EVIL, reason=EVIL, status=EVIL)
    summary["config"]["title"] = EVIL
    summary["level"] = EVIL
    summary["calibration"][0]["formula"] = EVIL
    summary["hull"]["entries"][7]["formula"] = EVIL
    summary["finds"][0].update(
        formula=EVIL, generator=EVIL, arm=EVIL, spacegroup=EVIL, prototype=EVIL, level=EVIL, novelty=EVIL, id=EVIL,
        competing=[{"formula": EVIL, "fraction": 0.5, "id": "a"}, {"formula": "MgO", "fraction": 0.5, "id": "b"}],
        lineage=[{"id": EVIL, "formula": EVIL, "origin": EVIL}, {"id": EVIL, "formula": EVIL, "origin": EVIL}],
    )  # fmt: skip
    evil = Page(render(summary))
    assert "img" not in evil.tags
    assert evil.tags.count("script") == clean.tags.count("script")
    assert json.loads(evil.scripts["figures"])
    assert EVIL in json.loads(evil.scripts["scenes"])


def test_a_campaign_that_has_just_begun(summary):
    summary.update(
        rounds=[], finds=[], hull=None, calibration=[], learning=[], rejections={}, failures=[], cost={}, finished=None, level=""
    )
    page = Page(render(summary))
    assert "Nothing new was found" in page.shown
    assert "No round has finished yet" in page.shown
    assert "table" not in page.ids
    assert "hull" not in page.ids


def test_a_campaign_after_the_fact(summary):
    finds = [{**f, "separation_energy": None, "competing": [], "sigma": None} for f in summary["finds"]]
    looked = {"by_round": [30, 200, 412], "looked_at": [805, 2000, 4026], "pool": 16107}
    recall = {"found": 412, "total": 480, "share": 412 / 480, "random_expected": 120.0, **looked}
    summary.update(hull=None, oracle="table", criterion={"by": "label", "threshold": 0.2, "unit": "eV/atom"}, finds=finds, recall=recall)
    text = Page(render(summary)).shown
    assert "played after the fact" in text
    assert "412 of the 480 there are in the table were found after a look at 4 026 of 16 107" in text
    assert "random picks would have found about 120" in text
    assert "not from a DFT calculation" not in text


def test_many_finds_stay_small(summary):
    """Hundreds of finds: all in the table, the first hundred or so drawn."""
    from naica.app.report_finds import MOST_DRAWN

    first = summary["finds"][1]
    summary["finds"] = [{**first, "id": f"find{k:04d}"} for k in range(400)]
    text = render(summary)
    page = Page(text)
    assert len(text) < 7e6
    assert len(json.loads(page.scripts["scenes"])) == MOST_DRAWN
    assert sum(i.startswith("find-") for i in page.ids) == 400


def test_a_place_that_cannot_be_written(summary, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write the report .*file/report\.html.*--out"):
        write_report(summary, tmp_path / "file" / "report.html")


def test_a_failed_write_keeps_the_old_page(summary, tmp_path, monkeypatch):
    path = write_report(summary, tmp_path / "report.html")
    old = path.read_bytes()

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_report(summary, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Al2O3", "Al<sub>2</sub>O<sub>3</sub>"), ("<b>2", "&lt;b&gt;2"), ("Ca3(PO4)2", "Ca<sub>3</sub>(PO<sub>4</sub>)<sub>2</sub>")],
)
def test_formulas_are_set_low_and_escaped(name, shown):
    assert str(formula(name)) == shown


def test_space_groups_get_their_bars():
    assert str(spacegroup("Fd-3m (227)")) == 'Fd<span class="over">3</span>m (227)'
    assert str(spacegroup("P6_3/mmc (194)")) == "P6<sub>3</sub>/mmc (194)"
    assert str(spacegroup(None)) == "–"


# --- exports --------------------------------------------------------------------------------------------------------------------
def test_export_can_be_read_back(summary, tmp_path):
    from naica import CrystalTable, read

    written = write_export(summary, tmp_path / "out")
    assert {p.suffix for p in written} == {".csv", ".parquet", ".extxyz", ".cif", ".zip", ".jsonl"}
    table = CrystalTable.read(tmp_path / "out" / "finds.parquet")
    assert table.ids == [f["id"] for f in summary["finds"]]
    assert [c.formula for c in table] == ["MgAl2O4", "MgAl4O7"]
    assert [c.formula for c in read(tmp_path / "out" / "finds.extxyz")] == ["MgAl2O4", "MgAl4O7"]
    assert read(next((tmp_path / "out" / "cif").glob("MgAl2O4-*.cif"))).formula == "MgAl2O4"
    rows = list(csv.DictReader((tmp_path / "out" / "finds.csv").open()))
    assert rows[0]["lineage"] == "MgAl2O4 (prototype) <- spinel (prototype)"
    assert rows[0]["competing"] == "0.7143 Al2O3 + 0.2857 MgO"


def test_export_of_nothing_is_an_empty_table(summary, tmp_path):
    summary["finds"] = []
    assert [p.name for p in write_export(summary, tmp_path / "out")] == ["finds.csv"]


# --- in a browser ---------------------------------------------------------------------------------------------------------------------
PROBE = """<script>
window.addEventListener("securitypolicyviolation", (e) => console.error("POLICY " + e.blockedURI));
setTimeout(() => {
  const out = {plots: document.querySelectorAll(".plot .main-svg").length};
  document.querySelector("[data-scene]").click();
  out.canvas = document.querySelectorAll(".stage canvas").length;
  document.querySelector("#finds-table th.n .sort").click();
  document.querySelector("#finds-table th.n .sort").click();
  out.first = document.querySelector("tr.find th").dataset.value;
  const search = document.getElementById("search");
  search.value = "grossite"; search.dispatchEvent(new Event("input"));
  out.count = document.getElementById("count").textContent;
  document.querySelector("tr.find:not([hidden]) th button").click();
  out.open = document.querySelectorAll("tr.detail:not([hidden])").length;
  out.wide = document.documentElement.scrollWidth > innerWidth;
  console.log("PROBE " + JSON.stringify(out));
}, 1500);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_without_network(summary, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render(summary).replace("</body>", PROBE), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=9000", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{path}",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    probes = [line for line in console if "PROBE" in line]
    assert [line for line in console if line not in probes] == []
    found = json.loads(re.search(r'PROBE (\{.*\})"', probes[0]).group(1).replace('\\"', '"'))
    assert found["plots"] >= 4
    assert found["canvas"] >= 1
    assert found["first"] == "MgAl4O7"  # sorted by separation energy, largest first
    assert found["count"] == "1 of 2"
    assert found["open"] == 1
    assert found["wide"] is False
