import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from naica.data import fetch, registry
from naica.data.registry import DataSet, FileFact
from naica.errors import InputError, MissingPart, RunError

CONTENT = {"toy/one.csv": b"id,value\n" * 5000, "toy/sub folder/two.bin": bytes(range(256)) * 400}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror folder with a registered set `toy`; the data root is an empty folder."""
    folder = tmp_path / "mirror"
    facts = []
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        facts.append(FileFact(path, fetch.digest(folder / path), len(content)))
    toy = DataSet("toy", "toy", "files", "", tuple(facts), None, "MIT", "nobody (2020)", "github.com/some/where", ())
    monkeypatch.setattr(registry, "_registry", lambda: {"toy": toy})
    monkeypatch.setenv("NAICA_DATA", str(tmp_path / "root"))
    monkeypatch.delenv("NAICA_DATA_URL", raising=False)
    return folder


@pytest.fixture
def serve():
    """Starts a server with a handler and returns its address."""
    running = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _check(target):
    assert {p: (target / p).read_bytes() for p in CONTENT} == CONTENT
    assert not list(target.rglob("*.part"))


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_from_a_folder(mirror, tmp_path, form):
    seen = []
    pulled = fetch.pull("toy", tmp_path / "new", form.format(mirror), lambda *a: seen.append(a))
    _check(tmp_path / "new")
    assert pulled.fetched == tuple(CONTENT)
    assert seen
    again = fetch.pull("toy", tmp_path / "new", str(mirror))
    assert (again.fetched, again.kept) == ((), tuple(CONTENT))


def test_over_http(mirror, tmp_path, serve, monkeypatch):
    monkeypatch.setenv("NAICA_DATA_URL", serve(partial(Quiet, directory=str(mirror))))
    fetch.pull("toy")
    _check(tmp_path / "root")
    assert fetch.verify("toy") == []


def test_damage_is_found_and_mended(mirror, tmp_path):
    fetch.pull("toy", base=str(mirror))
    (tmp_path / "root" / "toy" / "one.csv").write_bytes(b"damaged")
    (tmp_path / "root" / "toy" / "sub folder" / "two.bin").unlink()
    assert [p.split(":")[0] for p in fetch.verify("toy")] == list(CONTENT)
    assert fetch.pull("toy", base=str(mirror)).fetched == tuple(CONTENT)
    _check(tmp_path / "root")


def _breaking_handler(mirror, ranges, asked):
    class Breaking(BaseHTTPRequestHandler):
        """Sends half of what is asked on the first request for a file, then the rest; with or without support for ranges."""

        def log_message(self, *_):
            pass

        def do_GET(self):
            from urllib.parse import unquote

            content = (mirror / unquote(self.path).lstrip("/")).read_bytes()
            wanted = self.headers.get("Range")
            asked.append((self.path, wanted))
            start = int(wanted[6:-1]) if wanted and ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            first = sum(1 for path, _ in asked if path == self.path) == 1
            self.wfile.write(content[start : len(content) // 2] if first else content[start:])
            self.close_connection = True

    return Breaking


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_resumed(mirror, tmp_path, serve, ranges):
    asked = []
    base = serve(_breaking_handler(mirror, ranges, asked))
    for _ in range(2):
        with pytest.raises((RunError, MissingPart), match=r"pull again|cannot be reached"):
            fetch.pull("toy", tmp_path / "new", base)
    fetch.pull("toy", tmp_path / "new", base)
    _check(tmp_path / "new")
    half = len(CONTENT["toy/one.csv"]) // 2
    assert [r for p, r in asked if p == "/toy/one.csv"] == [None, f"bytes={half}-"]


def test_a_wrong_file_is_not_kept(mirror, tmp_path):
    (mirror / "toy" / "one.csv").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"toy/one\.csv.*is not the published file \(14 bytes"):
        fetch.pull("toy", tmp_path / "new", str(mirror))
    assert not list((tmp_path / "new" / "toy").iterdir())


def test_no_mirror_says_where_the_set_comes_from(mirror, tmp_path, serve):
    with pytest.raises(MissingPart, match=r"github\.com/some/where.*NAICA_DATA_URL"):
        fetch.pull("toy", tmp_path / "new")
    with pytest.raises(MissingPart, match="answered 404"):
        fetch.pull("toy", tmp_path / "new", serve(partial(Quiet, directory=str(tmp_path / "mirror" / "toy"))))
    with pytest.raises(MissingPart, match="cannot be reached"):
        fetch.pull("toy", tmp_path / "new", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="expected a folder, file://"):
        fetch.pull("toy", tmp_path / "new", "ftp://127.0.0.1/x")


def test_a_folder_that_cannot_be_written(mirror, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(RunError, match=r"toy/one\.csv"):
        fetch.pull("toy", blocked, str(mirror))


def test_a_full_disk_keeps_what_came(mirror, tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfile", full)
    with pytest.raises(RunError, match=r"No space left.*pull again"):
        fetch.pull("toy", tmp_path / "new", str(mirror))
    monkeypatch.undo()
    assert not (tmp_path / "new" / "toy" / "one.csv").exists()


def test_the_sets_on_this_machine_are_the_published_ones():
    present = [s for s in registry.sets() if s.present]
    if not present:
        pytest.skip("no data set is on this machine")
    assert {s.name: fetch.verify(s.name) for s in present} == {s.name: [] for s in present}
