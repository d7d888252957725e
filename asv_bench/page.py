"""``python -m asv_bench.page``: publish the history of all speeds to ``docs/speed``.

Runs ``asv publish``, and has the page load its scripts from ``docs/speed/vendor`` instead of from
the network, so that it opens anywhere and as long as the repository stands. Each machine of the
history has a line of its own in the overview, where asv would draw one line through all.

``python -m asv_bench.page machine`` comes before a result is added: it tells asv the names that the
history has for its machines and their parts. (``asv machine`` forgets the number of processors.)
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
HISTORY = FOLDER / "results"
PAGE = FOLDER.parent / "docs" / "speed"

LINK = re.compile(r'(src|href)="https://[^"]*?/([^/"]+)"[^>]*>')
"""A script or style that is loaded from the network, up to the end of its tag."""

SCRIPTS = ("summarygrid.js", "asv_ui.js")
"""asv's scripts that draw the overview: the page itself, and what is shown beside a pointer."""

DRAWING = {"[{data: data}]": "data", "lines: {": "points: {show: true, radius: 2}, lines: {"}
"""What they have -> what they get: several lines, each with its points."""


def local_name(remote):
    """The vendored file that stands for a remote one: of any version, minified or not."""
    plain = re.sub(r"-[0-9.]+(?=\.min)", "", remote)
    for name in (plain, plain.replace(".min.", ".")):
        if (PAGE / "vendor" / name).is_file():
            return name
    raise SystemExit(f"asv's page loads {remote}, which is not in {PAGE / 'vendor'}")


def without_network(text):
    """The page's HTML with its links turned to ``vendor``."""
    return LINK.sub(lambda found: f'{found[1]}="vendor/{local_name(found[2])}">', text)


def make_page(published, page):
    """Copy what ``asv publish`` wrote to a folder, which keeps its ``vendor`` and nothing else."""
    page.mkdir(parents=True, exist_ok=True)
    for path in page.iterdir():
        if path.name != "vendor":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(published, page, dirs_exist_ok=True)
    if not (page / "vendor").is_dir():
        shutil.copytree(PAGE / "vendor", page / "vendor")
    index = page / "index.html"
    index.write_text(without_network(index.read_text()))


def publish(results, html):
    """Run ``asv publish`` for a folder of results."""
    config = json.loads((FOLDER / "asv.conf.json").read_text())
    config |= {"repo": str(FOLDER.parent), "benchmark_dir": str(FOLDER / "benchmarks")}
    config |= {"results_dir": str(results), "html_dir": str(html)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "asv.conf.json")
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "asv", "publish", "--config", str(path)]
        subprocess.run(command, cwd=folder, check=True)


def machines_of(results):
    """The folders of a history's machines."""
    return sorted(path.parent for path in results.glob("*/machine.json"))


def summaries_of(machine):
    """The lines of the overview as asv makes them of one machine: a file's name -> its points."""
    with tempfile.TemporaryDirectory() as folder:
        results, html = Path(folder, "results"), Path(folder, "html")
        shutil.copytree(machine, results / machine.name)
        shutil.copy(machine.parent / "benchmarks.json", results)
        publish(results, html)
        paths = (html / "graphs" / "summary").glob("*.json")
        return {path.name: json.loads(path.read_text()) for path in paths}


def keep_machines_apart(html, machines):
    """Have the overview draw a line for each machine, and a point where there is only one."""
    lines = [summaries_of(machine) for machine in machines]
    for path in (html / "graphs" / "summary").glob("*.json"):
        path.write_text(json.dumps([line.get(path.name, []) for line in lines]))
    for script in SCRIPTS:
        path = html / script
        path.write_text(with_several_lines(path.read_text()))


def with_several_lines(script):
    """The text of one of asv's scripts that draws a file of the overview, which has lines now."""
    before, loads, after = script.partition("'graphs/summary/'")
    for asv, ours in DRAWING.items():
        if asv not in after:
            raise SystemExit(f"asv's script of the overview has no {asv!r} behind {loads!r}")
        after = after.replace(asv, ours, 1)
    return before + loads + after


def know_machines(known=None):
    """Enter the history's machines in the file of machines that asv knows."""
    known = known or Path("~/.asv-machine.json").expanduser()
    machines = json.loads(known.read_text()) if known.is_file() else {"version": 1}
    for folder in machines_of(HISTORY):
        machine = json.loads((folder / "machine.json").read_text())
        version = machine.pop("version")
        if version != machines["version"]:
            raise SystemExit(f"{known} is of version {machines['version']}, should be of {version}")
        machines[machine["machine"]] = machine
    known.write_text(json.dumps(machines, indent=4) + "\n")


def main():
    if sys.argv[1:] == ["machine"]:
        know_machines()
        return
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder, "html")
        publish(HISTORY, html)
        keep_machines_apart(html, machines_of(HISTORY))
        make_page(html, PAGE)


if __name__ == "__main__":
    main()
