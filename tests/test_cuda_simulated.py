"""The tests of CUDA code, in Numba's simulator, and what is said where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbatch.errors import DeviceError

FOLDER = Path(__file__).parent


MODULES = ("attention", "products", "rows", "sampling", "engine")


@pytest.mark.parametrize("module", [f"test_cuda_{name}.py" for name in MODULES])
def test_in_the_simulator(module):
    # pytest-benchmark, where it is installed, warns in a process that xdist began.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(FOLDER / module)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, cwd=FOLDER.parent, capture_output=True,
        text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_importing_needs_no_driver():
    code = (
        "import numbatch.kernels.cuda, numbatch.batching.cuda.engine, sys;"
        "assert 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


class FakeRuntime:
    """What CuPy says of a machine."""

    def __init__(self, version, devices):
        self.version, self.devices = version, devices

    def driverGetVersion(self):  # noqa: N802
        return self.version

    def getDeviceCount(self):  # noqa: N802
        if isinstance(self.devices, Exception):
            raise self.devices
        return self.devices


@pytest.mark.parametrize(
    ("version", "devices", "message"),
    [
        (0, 0, "no NVIDIA driver was found"),
        (12080, 1, r"supports CUDA 12\.8, 13\.0 or later is needed"),
        (13000, RuntimeError("no CUDA-capable device"), "no GPU can be used: no CUDA-capable"),
    ],
)
def test_drivers_that_cannot_be_used(version, devices, message):
    from types import SimpleNamespace

    from numbatch.kernels.cuda import installation

    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=FakeRuntime(version, devices)))
    with pytest.raises(DeviceError, match=message):
        installation.count_devices(fake)


def test_numpy_that_is_too_new_is_named(monkeypatch):
    from numbatch.kernels.cuda import installation

    monkeypatch.setattr(installation.np, "__version__", "2.5.2")
    with pytest.raises(DeviceError, match=r"NumPy 2\.5\.2 is too new for numba-cuda"):
        installation.check_installation()


def test_missing_packages_are_named(monkeypatch):
    from numbatch.kernels.cuda import installation

    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"needs numba-cuda.*numbatch\[cuda\]"):
        installation.check_installation()
