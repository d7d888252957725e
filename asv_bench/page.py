"""``python -m asv_bench.page``: publish the history of all speeds to ``docs/speed``.

Runs ``asv publish``, and has the page load its scripts from ``docs/speed/vendor`` instead of from
the network, so that it opens anywhere and as long as the repository stands.

``python -m asv_bench.page machine`` comes before a result is added: it tells asv the names that the
history has for its machine and its parts. (``asv machine`` forgets the number of processors.)
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
HISTORY = FOLDER / "results" / "reference"
PAGE = FOLDER.parent / "docs" / "speed"

LINK = re.compile(r'(src|href)="https://[^"]*?/([^/"]+)"[^>]*>')
"""A script or style that is loaded from the network, up to the end of its tag."""


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


def know_machine(known=None):
    """Enter the history's machine in the file of machines that asv knows."""
    known = known or Path("~/.asv-machine.json").expanduser()
    machines = json.loads(known.read_text()) if known.is_file() else {"version": 1}
    machine = json.loads((HISTORY / "machine.json").read_text())
    version = machine.pop("version")
    if version != machines["version"]:
        raise SystemExit(f"{known} is of version {machines['version']}, should be of {version}")
    machines[machine["machine"]] = machine
    known.write_text(json.dumps(machines, indent=4) + "\n")


def main():
    if sys.argv[1:] == ["machine"]:
        know_machine()
        return
    subprocess.run([sys.executable, "-m", "asv", "publish"], cwd=FOLDER, check=True)
    make_page(FOLDER.parent / ".asv" / "html", PAGE)


if __name__ == "__main__":
    main()
