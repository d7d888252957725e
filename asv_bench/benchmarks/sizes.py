"""How large benchmarks are, how often they run, and by which clock.

asv reads ``rounds``, ``repeat`` and the like from a benchmark's module, so each imports them. asv's
own choice would be two rounds of up to ten seconds, hours for all. Here a commit is timed in
``ROUNDS`` rounds, the other one between them, and each round takes one sample of a new process:
samples of one process are alike, and many of them look like certainty. Eight are what asv's test
needs to tell two commits apart.

On a machine that does other work too, time on the wall says little. What runs on one thread is
timed by the processor time that it takes (``CPU``), what starts processes by theirs (``CHILDREN``).

With ``NUMBATCH_BENCH_QUICK=1`` all benchmarks take a minute or two together. Such results must not
be kept: they are of other sizes under the same names.
"""

import functools
import os
import resource
import shutil
import time
from pathlib import Path

QUICK = bool(os.environ.get("NUMBATCH_BENCH_QUICK"))

rounds = 8
repeat = 1
warmup_time = 0
"""None: a setup runs once what is timed, so that nothing is compiled later. What starts a process
finds its code compiled by others, in all rounds but perhaps the first."""
min_run_count = 1
timeout = 600
"""Seconds; the first to use the model compiles it, on a busy machine in two minutes."""
version = "1"
"""Of what benchmarks mean. asv would take each edit of their code for another meaning, and forget
what it measured before."""

CPU = time.process_time
WALL = time.perf_counter


def _children_seconds():
    """Return the processor time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


CHILDREN = staticmethod(_children_seconds)  # a class's function would be called with an instance


def timer_of(threads):
    """Return the clock for so many threads: those of one do not wait for each other."""
    return CPU if threads == 1 else WALL


def sized(full, small):
    """``full``, or ``small`` where it has to be quick."""
    return small if QUICK else full


def once(setup):
    """Do a benchmark's setup once a process; asv would repeat it before every call."""

    @functools.wraps(setup)
    def kept(self, *params):
        if getattr(self, "_set_up_for", None) != params:
            setup(self, *params)
            self._set_up_for = params

    return kept


def only(condition):
    """Leave a combination of parameters out that tells nothing new; called in a setup."""
    if not condition:
        raise NotImplementedError


def last_change(folder):
    """Return when a file in a folder was written last."""
    return max((each.stat().st_mtime for each in folder.rglob("*")), default=0.0)


def keep_compiled_code_apart(environment, commit):
    """Give each commit that asv installs a cache of its own, with the models of the user's.

    Rounds change from commit to commit, and would compile again what differs between them. A new
    commit begins with what the last one compiled: what it does not share is stale, and is replaced.
    """
    users = os.environ.get("NUMBATCH_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "numbatch"
    )
    models = Path(users).expanduser().resolve() / "models"
    models.mkdir(parents=True, exist_ok=True)
    own = environment / "numbatch" / commit
    if not own.is_dir():
        own.parent.mkdir(exist_ok=True)
        others = sorted(own.parent.glob("*/jit"), key=last_change)
        made = own.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(others[-1], made / "jit") if others else made.mkdir()
        (made / "models").symlink_to(models)
        made.rename(own)
    os.environ["NUMBATCH_CACHE"] = str(own)
