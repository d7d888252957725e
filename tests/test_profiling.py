"""The profile: what is counted, what is timed, and how it is told."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import write_huggingface

from numbatch import LLM
from numbatch.batching.baseline.model_work import ModelWork
from numbatch.batching.commands import cli
from numbatch.batching.machine import MachineLimits
from numbatch.batching.profiling import timed_team
from numbatch.batching.profiling.entry import Entry, Profile, added_up
from numbatch.batching.profiling.page import to_html
from numbatch.batching.profiling.run import profile_generation, profile_scoring
from numbatch.batching.profiling.table import HEADS, rows_of, to_text
from numbatch.batching.profiling.timed_team import TimedTeam
from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.decoder_step import PHASES
from numbatch.kernels.threads import Call

LIMITS = MachineLimits(1, read=1e10, float32=1e11, bfloat16=2e11, int8=4e11)
ENTRIES = [
    Entry("product", 2, 0.5, 1e10, 1e9),
    Entry("norm", 1, 0.1, 0, 5e8),
    Entry("unknown", 1, 0.2, 0, 0),
]
PROFILE = Profile("scoring", 100, 1.0, ENTRIES, LIMITS)


@cpu_kernel
def nothing(start, stop):
    """Do nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny(folder):
    return LLM(folder, enable_prefix_caching=False)


def test_entries_are_added_up_by_name():
    once = Entry("a", 1, 0.25, 10.0, 5.0)
    assert added_up([once, Entry("b", 1, 1.0, 0, 0), once]) == [
        Entry("b", 1, 1.0, 0, 0),
        Entry("a", 2, 0.5, 20.0, 10.0),
    ]


def test_shares_of_the_limit():
    product, norm, unknown = ENTRIES
    assert product.intensity == 10
    # 1e10 operations take 0.1 s, 1e9 bytes as long.
    assert product.share_of_limit(LIMITS, "float32") == pytest.approx(0.2)
    assert product.share_of_limit(LIMITS, "int8") == pytest.approx(0.2)
    assert norm.share_of_limit(LIMITS, "float32") == pytest.approx(0.5)
    assert norm.intensity is None
    assert unknown.share_of_limit(LIMITS, "float32") is None
    assert PROFILE.between == pytest.approx(0.2)


def test_the_table_says_what_was_counted():
    rows = {row[0]: row for row in rows_of(PROFILE)}
    assert rows["product"] == (
        *("product", "2", "500 ms", "50.0 %"),
        *("20.0", "2.00", "10.00", "20.0 %"),
    )
    assert rows["unknown"][4:] == ("", "", "", "")
    assert rows["between kernels"][2:4] == ("200 ms", "20.0 %")
    text = to_text(PROFILE)
    assert "100.0 tokens/s" in text
    assert all(head in text for head in HEADS)
    assert "More than 100 %" not in text
    fast = replace(PROFILE, entries=[replace(PROFILE.entries[0], seconds=1e-6)])
    assert "More than 100 %" in to_text(fast)


def test_the_page_has_a_roofline():
    page = to_html([PROFILE])
    start = page.index("<svg")
    drawing = ET.fromstring(page[start : page.index("</svg>") + len("</svg>")])
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 1
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_work_is_counted_as_the_model_has_it(tiny):
    work = ModelWork.of(tiny.engine.model.decoder)
    profile = profile_scoring(tiny, 3, 10)
    named = {entry.name: entry for entry in profile.entries}
    operations, _ = work.scoring(3, 10, 512)
    assert sum(entry.operations for entry in profile.entries) == operations
    products = ("query, key, value", "output", "gate, up", "down")
    # The last token of a text is not asked what follows.
    assert sum(named[name].operations for name in products) == 27 * work.layers
    assert named["log-probabilities"].operations == 27 * work.head
    assert named["attention"].operations == 3 * 45 * work.attention
    assert sum(entry.seconds for entry in profile.entries) <= profile.seconds
    assert profile.tokens == 30
    made = profile_generation(tiny, 2, 4)
    named = {entry.name: entry for entry in made.entries}
    assert named["sampling"].calls == named["logits"].calls == 4
    operations, _ = work.generation(2, 16, 4, at_once=32)
    assert sum(entry.operations for entry in made.entries) == operations
    assert all(entry.seconds > 0 for name, entry in named.items() if name != "wait")
    assert set(PHASES) <= named.keys()


def test_taking_notes_is_no_part_of_a_run(tiny, monkeypatch):
    clock = iter(range(10**6))  # every look at the clock takes a second
    monkeypatch.setattr(timed_team, "perf_counter", lambda: float(next(clock)))
    team = TimedTeam(1, tiny.engine.model.decoder)
    team.run(Call(nothing, 1, ()))
    assert [entry.seconds for entry in team.entries] == [1]
    assert team.noting == 1
    team.clear()
    assert (team.entries, team.noting) == ([], 0)


def test_nothing_is_counted_without_being_asked(tiny):
    profile_scoring(tiny, 1, 4)
    assert tiny.engine.forward.cycles.size == 0
    assert tiny.engine.forward.cycles.dtype == np.bool_  # compiled without counters


def test_the_engine_is_as_it_was_afterwards(tiny, monkeypatch):
    text = np.arange(5)
    before, team = tiny.score([text])[0], tiny.engine.forward.team
    profile_scoring(tiny, 1, 4)
    assert tiny.engine.forward.team is team
    calls = []

    def broken(texts):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("in the middle")

    monkeypatch.setattr(tiny, "score", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        profile_scoring(tiny, 1, 4)
    monkeypatch.undo()
    assert tiny.engine.forward.team is tiny.engine.sampler.team is team
    assert np.array_equal(tiny.score([text])[0], before, equal_nan=True)


@pytest.mark.parametrize(
    ("sequences", "length", "message"),
    [(0, 5, "0 x 5"), (1, 0, "1 x 0"), (1, 10**6, "the context is")],
)
def test_bad_sizes(tiny, sequences, length, message):
    with pytest.raises(InputError, match=message):
        profile_scoring(tiny, sequences, length)
    with pytest.raises(InputError, match=message):
        profile_generation(tiny, sequences, length)


def test_the_command_prints_and_writes(folder, tmp_path):
    page = tmp_path / "profile.html"
    command = ["profile", "-m", folder, "--score", "2x8", "--generate", "2x3", "-o", str(page)]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 0, done.output
    assert "scoring 2 x 8 tokens" in done.stdout
    assert "generating 2 x 3 tokens after 16" in done.stdout
    assert "between kernels" in done.stdout
    assert page.read_text().count("<svg") == 2
    lost = tmp_path / "no" / "folder.html"
    done = CliRunner().invoke(cli.main, [*command[:-1], str(lost)])
    assert done.exit_code == 1
    assert "cannot write" in done.output


@pytest.mark.parametrize("shape", ["8", "8x", "x8", "8x-1", "axb"])
def test_a_bad_shape_is_told_before_the_model_is_loaded(shape, monkeypatch):
    monkeypatch.setattr(cli, "load_llm", lambda *_, **__: pytest.fail("the model was loaded"))
    done = CliRunner().invoke(cli.main, ["profile", "--score", shape])
    assert done.exit_code == 2
    assert "should be SEQUENCESxTOKENS" in done.output
