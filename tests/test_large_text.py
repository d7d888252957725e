"""One text of more than 2 GB, whose places need 64 bits."""

import os

import numpy as np
import pytest

from numbatch.kernels.ragged import Ragged
from numbatch.models.tokenizers.from_tiktoken import tokenizer_from_ranks
from numbatch.models.tokenizers.split_patterns import CL100K, TiktokenEncoding

RANKS = {bytes([b]): b for b in range(256)}
for _token in (b"Th", b"The", b" q", b"ui", b" qui", b"ck", b" quick", b" f", b"ox", b" fox"):
    RANKS[_token] = len(RANKS)
UNIT = b"The quick fox.\n" + b"The quick quick quick quick fox quick fox.\n" * 3
TEXT_BYTES = 2_300_000_000
NEEDED = 12 << 30


def available():
    """Bytes of memory that are free for this process, as Linux has it."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo") as lines:
            return next(int(row.split()[1]) << 10 for row in lines if row.startswith("MemAvail"))
    except (OSError, StopIteration):
        return pages


@pytest.mark.skipif(available() < NEEDED, reason="less than 12 GB of memory are free")
def test_a_text_of_more_than_2_gb():
    """The lines are alike, and pieces end with them: so are their ids, to the last one."""
    tokenizer = tokenizer_from_ranks(RANKS, TiktokenEncoding(CL100K, {}), name="tiny")
    expected = tokenizer.encode(UNIT + UNIT)[: tokenizer.encode(UNIT).size]
    assert tokenizer.decode_bytes(expected) == UNIT
    count = TEXT_BYTES // len(UNIT)
    text = np.tile(np.frombuffer(UNIT, np.uint8), count)
    assert text.size > 1 << 31
    rows = Ragged(text, np.array([0, text.size]))
    ids = tokenizer.encode_batch(rows, threads=2)
    assert len(ids) == 1
    assert ids.values.size == count * expected.size
    found = ids.values.reshape(count, expected.size)
    for at in range(0, count, 1 << 20):
        assert (found[at : at + (1 << 20)] == expected).all()
