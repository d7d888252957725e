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
