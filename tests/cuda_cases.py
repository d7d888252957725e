"""What the tests of CUDA kernels share: who can run them, and comparisons."""

import numpy as np
import pytest

from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

SIMULATED = is_simulated()


def _has_gpu():
    try:
        Gpu()
    except DeviceError:
        return False
    return True


needs_device = pytest.mark.skipif(
    not (SIMULATED or _has_gpu()), reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"
)
on_gpu = pytest.mark.skipif(SIMULATED, reason="the simulator has no tensor cores")
THREADS = 4 if SIMULATED else 128
FORMATS = [formats.F32, formats.F16, formats.Q4_0, formats.Q4_1, formats.Q8_0, formats.Q5_1]


def rounded(x):
    """Values that bfloat16 holds, as float32."""
    return float32_array(bfloat16_array(np.asarray(x, np.float32)))


def close(found, wanted, tolerance):
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


def quantized(rng, format, shape):
    import gguf

    kind = gguf.GGMLQuantizationType(format)
    return gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32), kind)
