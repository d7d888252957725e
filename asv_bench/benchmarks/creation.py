"""What it takes to begin: import, loading, compilation with a warm and with an empty cache."""

import os
import subprocess
import sys
import tempfile
import time

from .sizes import repeat, rounds, sized  # noqa: F401

FIRST_SCORE = "from numbatch import LLM; LLM('smollm2').score(['Hello there'])"
FIRST_MEAN = "from numbatch import statistics; statistics.mean([1.0, 2.0])"


def run(program, **environment):
    """Seconds of a new process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **environment})
    return time.perf_counter() - begin


class Import:
    """A new process that imports the package, and one that imports NumPy alone."""

    timeout = 600
    number = 1
    params = ("numbatch", "numpy")
    param_names = ("module",)

    def time_import(self, module):
        run(f"import {module}")


class Load:
    """The default model and its tokenizer, from files that are in the system's cache."""

    timeout = 300
    number = 1

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
    """A new process to its first result: with compiled code in the cache, and with none."""

    timeout = 600
    number = 1
    params = sized(("mean", "score"), ("mean",))
    param_names = ("first",)
    programs = {"mean": FIRST_MEAN, "score": FIRST_SCORE}  # noqa: RUF012

    def setup(self, first):
        from numbatch.models.locate import locate

        self.program = self.programs[first]
        self.models = locate("smollm2").parent
        run(self.program)

    def time_warm(self, first):
        run(self.program)

    def track_cold_seconds(self, first):
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(self.models, os.path.join(folder, "models"))
            return run(self.program, NUMBATCH_CACHE=folder)

    track_cold_seconds.unit = "seconds"
