"""The tokenizer's CUDA twin: what can be tested on the CPU here, the rest in the simulator."""

import itertools
import random
import unicodedata

import numpy as np
import pytest
from random_text import random_text
from simulated import run_simulated
from test_split import FAMILIES, splitter_of

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.composition import UNSURE, composition_table
from numbatch.kernels.tokenization.cuda.boundaries import find_invalid, sure_starts
from numbatch.kernels.tokenization.split import split_pieces
from numbatch.kernels.tokenization.unicode_classes import PAGES
from numbatch.models.tokenizers.split_families import compiled_rules


def test_in_the_simulator():
    run_simulated("simulated_tokenization.py")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sure_start_begins_a_piece(family):
    rules = compiled_rules(splitter_of(FAMILIES[family]))
    rng = random.Random(7)
    found = pieces = 0
    for _ in range(1500):
        text = np.frombuffer(random_text(rng).encode(), np.uint8)
        starts = np.zeros(text.size + 1, bool)
        starts[split_pieces(text, rules)] = True
        starts[0] = True
        sure = sure_starts(text, rules)
        wrong = np.flatnonzero(sure & ~starts[:-1])
        assert not wrong.size, (bytes(text), wrong)
        found += int(sure.sum())
        pieces += int(starts.sum())
    assert found > 0.35 * pieces


@pytest.mark.parametrize("part", [b"a", b"\xc3\xa9", b"\xe4\xb8\xad", b"\xf0\x9f\x98\x80"])
def test_valid_utf8_is_taken_wherever_it_is_cut(part):
    text = b"a" + part + b"\xc3\xa9" + part
    for cut in range(len(text)):
        assert find_invalid(text, cut) == -1


def test_invalid_utf8_is_what_python_refuses():
    rng = random.Random(3)
    units = [b"a", b"\xc3", b"\xa9", b"\xe0", b"\x9f", b"\xa0", b"\xed", b"\xf0", b"\x90"]
    units += [b"\xf4", b"\x8f", b"\xc0", b"\xf5", b"\xff", b"\x80", b"\xc3\xa9", b"\xe4\xb8\xad"]
    refused = 0
    for _ in range(20000):
        text = b"".join(rng.choices(units, k=rng.randint(1, 6)))
        try:
            text.decode()
            valid = True
        except UnicodeDecodeError:
            valid = False
        for cut in {0, 1, len(text) // 2}:
            assert (find_invalid(text, cut) < 0) == valid, text
        refused += not valid
    assert 1000 < refused < 19999


def test_what_composes_is_unsure():
    table = composition_table()

    def entry(character):
        code = ord(character)
        return int(table[PAGES + (int(table[code >> 8]) << 8) + (code & 255)])

    assert entry("e") == entry("é") == entry("中") == entry("가") == 0
    assert entry("\u0301") == entry("\u2126") == entry("\u1161") == UNSURE
    assert entry("\u094d") == unicodedata.combining("\u094d") == 9
    rng = random.Random(5)
    changed = 0
    for _ in range(3000):
        text = random_text(rng, 40)
        kinds = [0, *map(entry, text)]
        pairs = list(itertools.pairwise(kinds))
        sure = all(k != UNSURE and (k == 0 or b <= k) for b, k in pairs)
        normal = unicodedata.normalize("NFC", text) == text
        assert normal or not sure
        changed += not normal
    assert changed > 10


def test_a_ragged_on_a_device_has_both_arrays_there():
    class OnDevice:
        shape = (3,)
        dtype = np.dtype(np.uint8)
        __cuda_array_interface__ = {"typestr": "|u1", "shape": (3,), "data": (0, False)}  # noqa: RUF012

    with pytest.raises(InputError, match="one on the host"):
        Ragged(OnDevice(), np.array([0, 3]))
    with pytest.raises(InputError, match="should be int64"):
        Ragged(OnDevice(), OnDevice())
