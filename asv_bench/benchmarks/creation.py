"""What it takes to begin: import, loading, compilation with a warm and with an empty cache."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile

from .sizes import (  # noqa: F401
    CHILDREN,
    CPU,
    min_run_count,
    repeat,
    rounds,
    sized,
    timeout,
    version,
    warmup_time,
)

FIRST_MEAN = "from numbatch import statistics; statistics.mean([1.0, 2.0])"
FIRST_IDS = "from numbatch import LLM; LLM('smollm2').encode('Hello')"
COUNTED = """
import json, resource, time
from numbatch.batching.warmup import compilations
wall, cpu = time.perf_counter(), time.process_time()
with compilations() as found:
    exec({program!r})
worked = (time.process_time() - cpu) / (time.perf_counter() - wall)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([found.functions, found.seconds * worked, used.ru_maxrss / 1024]))
"""
"""The compiler's seconds on the wall, by the share in which this process had the processor."""


def run(program, **environment):
    """Run a new process to its end."""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **environment})


@contextlib.contextmanager
def empty_cache():
    """Yield a cache without compiled code, with the models of this one."""
    from numbatch.models.locate import locate

    with tempfile.TemporaryDirectory() as folder:
        os.symlink(locate("smollm2").parent, os.path.join(folder, "models"))
        yield folder


class Import:
    """A new process that imports the package."""

    params = ("numbatch",)
    param_names = ("module",)
    timer = CHILDREN

    def time_import(self, module):
        run(f"import {module}")


class Load:
    """The default model and its tokenizer, from files that are in the system's cache."""

    timer = CPU

    def setup(self):
        from numbatch import LLM

        LLM("smollm2")

    def time_load(self):
        from numbatch import LLM

        LLM("smollm2")

    def peakmem_load(self):
        from numbatch import LLM

        LLM("smollm2")


class Compile:
    """A new process to its first result: with compiled code in the cache, and with none.

    A process to the first token is timed in ``scoring``.
    """

    params = ("mean",)
    param_names = ("first",)
    timer = CHILDREN

    def time_warm(self, first):
        run(FIRST_MEAN)

    def time_cold(self, first):
        with empty_cache() as folder:
            run(FIRST_MEAN, NUMBATCH_CACHE=folder)

    time_cold.rounds = 3


class Specialisations:
    """What a process compiles that finds an empty cache, once for all figures.

    All of a model takes a minute of the processor, too long for here: ``numbatch warmup`` tells it.
    The compiler's time has two samples, since asv takes a single one's noise for a change. A change
    of it is named where both agree; how many functions there are is the surer sign.
    """

    params = ("mean", "first ids")
    param_names = ("first",)
    programs = {"mean": FIRST_MEAN, "first ids": FIRST_IDS}  # noqa: RUF012

    def setup_cache(self):
        """Functions, seconds in the compiler, and peak memory in MB, by what was compiled."""
        return {first: self.count(self.programs[first]) for first in self.params}

    def count(self, program):
        with empty_cache() as folder:
            done = subprocess.run(
                [sys.executable, "-c", COUNTED.format(program=program)],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "NUMBATCH_CACHE": folder},
            )
        return json.loads(done.stdout)

    def setup(self, found, first):
        self.seconds = 0.0

    def timer(self):
        """Read a clock that the compiler's seconds alone move."""
        return self.seconds

    def time_compiler(self, found, first):
        self.seconds += found[first][1]

    time_compiler.rounds = 2

    def track_functions(self, found, first):
        return found[first][0]

    def track_peak_memory(self, found, first):
        return found[first][2]

    track_functions.unit = "functions"
    track_peak_memory.unit = "MB"
