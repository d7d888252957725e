"""The JIT cache: a second process starts compiled, and an edit that matters is seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = {
    "numbatch/__init__.py": "",
    "numbatch/kernels/__init__.py": "",
    "numbatch/kernels/helper.py": (
        "from numbatch.kernels.jit import cpu_device\n"
        "@cpu_device\n"
        "def amount(x):\n"
        "    return x + 1\n"
    ),
    "numbatch/kernels/deep/__init__.py": "",
    "numbatch/kernels/deep/main.py": (
        "from numbatch.kernels.helper import amount\n"
        "from numbatch.kernels.jit import cpu_kernel\n"
        "@cpu_kernel\n"
        "def work(x):\n"
        "    return 10 * amount(x)\n"
    ),
}

NAMES = ("jit", "device_code", "simd_path", "amx", "source_stamp", "stored_code")
KERNEL_FILES = [f"kernels/{name}.py" for name in NAMES]

RUN = (
    "from numbatch.kernels.deep.main import work\n"
    "print(work(4), sum(work.stats.cache_hits.values()), sum(work.stats.cache_misses.values()))\n"
)


@pytest.fixture
def package(tmp_path):
    """A small package of the same shape, with the real jit.py and what it needs in it."""
    import numbatch.errors as errors

    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    root = Path(errors.__file__).parent
    for name in ("errors.py", *KERNEL_FILES):
        (tmp_path / "numbatch" / name).write_text((root / name).read_text())
    return tmp_path


CALLED = (
    "from numba import njit\n"
    "from numbatch.kernels.deep.main import work\n"
    "print(work(4), sum(work.stats.cache_hits.values()), njit(lambda x: work(x) + 1)(4))\n"
)

READY = (
    "import sys\n"
    "from numbatch.kernels.deep.main import work\n"
    "print(work(4), sum(work.stats.cache_hits.values()), int('numba.np.linalg' in sys.modules))\n"
)


def run(package, cache, program=RUN, **more):
    environment = dict(os.environ, NUMBATCH_CACHE=str(cache), PYTHONDONTWRITEBYTECODE="1", **more)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


def test_a_second_process_starts_compiled_and_an_edit_in_another_file_is_seen(package):
    cache = package / "cache"
    assert run(package, cache) == (50, 0, 1)
    assert run(package, cache) == (50, 1, 0)
    helper = package / "numbatch/kernels/helper.py"
    helper.write_text(helper.read_text().replace("x + 1", "x + 2"))
    assert run(package, cache) == (60, 0, 1)
    assert run(package, cache) == (60, 1, 0)


def test_compiled_code_calls_a_kernel_that_was_loaded(package):
    cache = package / "cache"
    assert run(package, cache, CALLED) == (50, 0, 51)
    assert run(package, cache, CALLED) == (50, 1, 51)


def test_loading_does_not_make_numba_ready_to_compile(package):
    cache = package / "cache"
    assert run(package, cache, READY) == (50, 0, 1)
    assert run(package, cache, READY) == (50, 1, 0)


def test_what_a_loaded_kernel_allocates_and_raises(package):
    main = package / "numbatch/kernels/deep/main.py"
    main.write_text(
        "import numpy as np\n"
        "from numbatch.kernels.jit import cpu_kernel\n"
        "@cpu_kernel(allocates=True)\n"
        "def work(x):\n"
        "    memory = np.zeros(10 * x - 30, np.int64)\n"
        "    return memory.size + memory.sum()\n"
    )
    program = RUN + (
        "try:\n"
        "    work(2)\n"
        "except ValueError as error:\n"
        "    print(len(error.args))\n"
    )  # fmt: skip
    cache = package / "cache"
    assert run(package, cache, program) == (10, 0, 1, 1)
    assert run(package, cache, program) == (10, 1, 0, 1)


def test_an_edit_behind_two_imports_is_seen(package):
    cache = package / "cache"
    helper = package / "numbatch/kernels/helper.py"
    (package / "numbatch/kernels/deep/constants.py").write_text("STEP = 1\n")
    text = helper.read_text().replace("x + 1", "x + STEP")
    helper.write_text("from numbatch.kernels.deep.constants import STEP\n" + text)
    assert run(package, cache) == (50, 0, 1)
    (package / "numbatch/kernels/deep/constants.py").write_text("STEP = 2\n")
    assert run(package, cache) == (60, 0, 1)


def test_an_edit_to_a_file_that_is_not_imported_costs_nothing(package):
    cache = package / "cache"
    assert run(package, cache) == (50, 0, 1)
    (package / "numbatch/kernels/deep/other.py").write_text("VALUE = 1\n")
    assert run(package, cache) == (50, 1, 0)


def test_code_for_another_cpu_is_kept_apart(package):
    cache = package / "cache"
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert run(package, cache) == (50, 0, 1)
    assert run(package, cache, **other) == (50, 0, 1)
    assert run(package, cache, **other) == (50, 1, 0)
    assert run(package, cache) == (50, 1, 0)


def test_a_cache_that_cannot_be_written_only_costs_time(package):
    blocked = package / "a_file"
    blocked.write_text("")
    assert run(package, blocked) == (50, 0, 1)
