"""What the tests share: the data folder, and the real model where it can be had."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Vocabularies and corpora: NUMBATCH_TEST_DATA, else ``shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NUMBATCH_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no vocabularies and corpora in {folder}; set NUMBATCH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The default model's file, fetched if it is not in the cache."""
    if os.environ.get("NUMBATCH_TEST_OFFLINE"):
        pytest.skip("NUMBATCH_TEST_OFFLINE is set: tests of the real model are skipped")
    from numbatch.models.locate import locate

    return locate("smollm2")


@pytest.fixture(scope="module")
def gpu():
    """The first GPU, or the simulator's."""
    from numbatch.kernels.cuda import Gpu

    return Gpu()
