"""Every benchmark runs, quickly; asv publishes results; a browser shows the graphs."""

import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "asv_bench"
HISTORY = FOLDER / "results"
MACHINES = sorted(path.parent.name for path in HISTORY.glob("*/machine.json"))
PAGE = ROOT / "docs" / "speed"
SHOWN = "statistics.Segments.time_mean"
GROUPS = sorted(
    path.stem
    for path in (FOLDER / "benchmarks").glob("*.py")
    if path.stem not in ("__init__", "sizes")
)
KINDS = ("time_", "peakmem_", "track_")

SMALLER = {
    "SharedContext": {"contexts": 1, "options": 2},
    "Continuous": {"count": 4, "at_once": 2},
    "Fairness": {"steps": 60},
}
"""Sizes of classes that have them as attributes."""


def benchmarks_of(module):
    """The classes of a module and their benchmarks' names."""
    for name, kind in vars(module).items():
        if (
            isinstance(kind, type)
            and not name.startswith("_")
            and kind.__module__ == module.__name__
        ):
            methods = [each for each in dir(kind) if each.startswith(KINDS)]
            if methods:
                yield kind, methods


def cases_of(kind):
    """All combinations of a class's parameters: tuples, empty of none."""
    params = getattr(kind, "params", ())
    if params and not isinstance(params[0], list | tuple):
        params = (params,)
    return list(itertools.product(*params))


@pytest.fixture(scope="module")
def quick(smollm2):
    """The benchmarks as asv imports them, in their small sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBATCH_BENCH_QUICK", "1")
        patch.syspath_prepend(str(FOLDER))
        yield
        for name in [each for each in sys.modules if each.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.filterwarnings("default")
def test_every_benchmark_runs(group, quick, request):
    if group == "tokenization":
        request.getfixturevalue("data_folder")
    module = importlib.import_module(f"benchmarks.{group}")
    found = list(benchmarks_of(module))
    assert found
    for kind, methods in found:
        cases = cases_of(kind)
        assert len(getattr(kind, "param_names", ())) == len(cases[0]), kind
        for case in cases:
            benchmark = kind()
            for name, size in SMALLER.get(kind.__name__, {}).items():
                setattr(benchmark, name, size)
            if hasattr(benchmark, "setup_cache"):
                case = (benchmark.setup_cache(), *case)
            try:
                getattr(benchmark, "setup", lambda *_: None)(*case)
            except NotImplementedError:  # asv's sign for a combination that is left out
                continue
            for method in methods:
                value = getattr(benchmark, method)(*case)
                if method.startswith("track_"):
                    assert value == value, (kind, method)
                    assert isinstance(value, int | float), (kind, method)
            getattr(benchmark, "teardown", lambda *_: None)(*case)


def test_a_commit_begins_with_what_the_last_one_compiled(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("sizes", FOLDER / "benchmarks" / "sizes.py")
    sizes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sizes)
    environment, caches = tmp_path / "env", []
    environment.mkdir()
    for commit in ("one", "two", "two"):
        monkeypatch.setenv("NUMBATCH_CACHE", str(tmp_path / "users"))
        sizes.keep_compiled_code_apart(environment, commit)
        caches.append(Path(os.environ["NUMBATCH_CACHE"]))
        assert (caches[-1] / "models").resolve() == tmp_path / "users" / "models"
        if commit == "one":
            (caches[-1] / "jit").mkdir()
            (caches[-1] / "jit" / "code").write_text("compiled")
    assert caches[0] != caches[1] == caches[2]
    assert (caches[1] / "jit" / "code").read_text() == "compiled"


def asv(folder, *arguments):
    """Run asv with all that it writes in ``folder``."""
    environment = {**os.environ, "HOME": str(folder), "NUMBATCH_BENCH_QUICK": "1"}
    environment.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    environment["ASV_PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-m", "asv", *arguments, "--config", str(folder / "asv.conf.json")],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory, data_folder):
    """A page that asv made of one result of this very checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("asv keeps results by commit, and this is no git checkout")
    folder = tmp_path_factory.mktemp("asv")
    config = json.loads((FOLDER / "asv.conf.json").read_text())
    config |= {"repo": str(ROOT), "benchmark_dir": str(FOLDER / "benchmarks"), "branches": ["HEAD"]}
    config |= {f"{name}_dir": str(folder / name) for name in ("env", "results", "html")}
    (folder / "asv.conf.json").write_text(json.dumps(config))
    asv(folder, "machine", "--machine", "test", "--yes")
    chosen = ("--bench", re.escape(SHOWN), "--machine", "test", "--set-commit-hash", "HEAD")
    told = asv(folder, "run", "--python", "same", "--quick", "--show-stderr", *chosen)
    assert "failed" not in told
    asv(folder, "publish")
    page_module().make_page(folder / "html", folder / "page")
    return folder / "page"


def page_module():
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("asv_bench.page")
    finally:
        sys.path.remove(str(ROOT))


def test_the_page_asks_nothing_of_the_network(published):
    for folder in (published, PAGE):
        text = (folder / "index.html").read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css)"', text)
        for name in re.findall(r'(?:src|href)="(vendor/[^"]*)"', text):
            assert (folder / name).is_file()
        assert text.count("vendor/") >= 9


def test_the_history_reaches_back_and_is_published():
    commits = {path.name.split("-")[0] for path in HISTORY.glob("*/*-*.json")}
    assert len(commits) >= 5
    index = json.loads((PAGE / "index.json").read_text())
    assert sorted(index["params"]["machine"]) == MACHINES
    assert len(index["revision_to_hash"]) >= len(commits)
    for group in ("creation", "end_to_end", "scoring", "statistics", "tokenization"):
        assert any(name.startswith(f"{group}.") for name in index["benchmarks"]), group


def test_results_name_the_machines_as_the_history_does(tmp_path):
    assert len(MACHINES) >= 1
    machines = {}
    for name in MACHINES:
        machine = json.loads((HISTORY / name / "machine.json").read_text())
        assert {"arch", "cpu", "num_cpu", "ram"} <= machine.keys()
        assert machine["machine"] == name
        version = machine.pop("version")
        machines[name] = machine
        for path in (HISTORY / name).glob("*-*.json"):
            assert json.loads(path.read_text())["params"].items() >= machine.items(), path.name
    known = tmp_path / "known.json"
    known.write_text(json.dumps({"other": {"machine": "other"}, "version": version}))
    page_module().know_machines(known)
    assert json.loads(known.read_text()) == {
        "other": {"machine": "other"},
        **machines,
        "version": version,
    }


def test_the_history_is_of_the_benchmarks_that_there_are():
    """asv draws the results of benchmarks that it finds, and of their present version alone."""
    benchmarks = json.loads((FOLDER / "results" / "benchmarks.json").read_text())
    for path in HISTORY.glob("*/*-*.json"):
        result = json.loads(path.read_text())
        version = result["result_columns"].index("version")
        for name, row in result["results"].items():
            assert row[version] == benchmarks[name]["version"], (path.name, name)


@contextlib.contextmanager
def served(folder):
    """Serve a folder on this machine; yields the address."""
    handler = functools.partial(SilentHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def browse(address, folder):
    """Open a page in a headless browser; return its elements as HTML, and what it looks like."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("there is no headless browser: install chromium (Debian's package is enough)")
    base = (browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    options = (f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000")
    environment = {**os.environ, "HOME": str(folder)}

    def run(*arguments):
        command = [*base, *options, *arguments, address]
        return subprocess.run(
            command, capture_output=True, timeout=300, check=True, env=environment
        )

    html = run("--dump-dom").stdout.decode()
    run(f"--screenshot={folder / 'shot.png'}", "--window-size=1200,900")
    return html, np.asarray(
        Image.open(io.BytesIO((folder / "shot.png").read_bytes())).convert("RGB")
    )


@pytest.mark.parametrize("which", ["new", "history"])
def test_a_browser_shows_the_graphs(which, published, tmp_path):
    with served(published if which == "new" else PAGE) as address:
        html, picture = browse(f"{address}#{SHOWN}", tmp_path)
    assert 'class="flot-base"' in html
    assert "tickLabel" in html
    assert SHOWN in html
    # The points' colour: flot draws the first row of 20 values in blue.
    blue = np.abs(picture.astype(int) - (31, 119, 180)).sum(axis=2) < 40
    assert blue[110:770, 360:].sum() > 20


def test_the_overview_has_a_line_for_each_machine(tmp_path):
    for path in (PAGE / "graphs" / "summary").glob("*.json"):
        lines = json.loads(path.read_text())
        assert len(lines) == len(MACHINES)
        assert any(lines), path.name
    with served(PAGE) as address:
        _, picture = browse(address, tmp_path)
    colors = [(31, 119, 180), (226, 74, 51), (152, 142, 213)]
    for machine, color in zip(MACHINES, colors, strict=False):
        if len(list((HISTORY / machine).glob("*-*.json"))) > 1:  # one version alone is no line
            assert (np.abs(picture.astype(int) - color).sum(axis=2) < 40).sum() > 20, machine


def test_a_script_of_asv_that_draws_otherwise_is_told():
    with pytest.raises(SystemExit, match=re.escape("has no 'lines: {'")):
        page_module().with_several_lines("load('graphs/summary/'); plot([{data: data}])")


def test_the_list_of_benchmarks_is_shown(published, tmp_path):
    with served(published) as address:
        html, _ = browse(f"{address}#summarylist", tmp_path)
    assert SHOWN in html
    assert "vendor/" in html
