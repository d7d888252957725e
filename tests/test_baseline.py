"""The baseline: its cases, its three files, and what it says of a change."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import write_huggingface

from numbatch import LLM
from numbatch.batching.baseline import svg
from numbatch.batching.baseline.case import Case, Record, join_rounds, measure_case
from numbatch.batching.baseline.compare import compare_reports
from numbatch.batching.baseline.html import to_html
from numbatch.batching.baseline.markdown import to_markdown
from numbatch.batching.baseline.model_work import ModelWork
from numbatch.batching.baseline.pace import Pace, Pacer
from numbatch.batching.baseline.report import Report
from numbatch.batching.baseline.tables import record_rows
from numbatch.batching.baseline.texts import documents, long_text
from numbatch.batching.commands import cli
from numbatch.batching.machine import MachineLimits, describe_machine, reader_of
from numbatch.batching.waiting import seconds_waited
from numbatch.errors import InputError

LIMITS = MachineLimits(1, read=1e10, float32=1e11, bfloat16=2e11, int8=4e11)
USUAL = Pace(arithmetic=1e-3, reading=2e-3)


def record(name, median, spread=0.01, group="generation", samples=6):
    low, high = median * (1 - spread), median * (1 + spread)
    rate, limit = 100 / median, median / 4
    return Record(group, name, "tokens", median, low, high, samples, rate, limit, None, USUAL, 0.0)


def report(records, limits=LIMITS):
    machine = describe_machine() | {"cpu": "<b>&CPU|"}
    return Report("2026-01-01", "tiny", 1, machine, limits, limits, records, 2.0, 10**8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return str(folder)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """The files of a quick run of the command."""
    folder = tmp_path_factory.mktemp("report") / "new"
    done = CliRunner().invoke(cli.main, ["baseline", "--quick", "-m", tiny, "-o", str(folder)])
    assert done.exit_code == 0, done.output
    return folder, done


def test_the_command_measures_all_that_it_promises(made):
    folder, done = made
    told = Report.read(folder / "baseline.json")
    assert set(told.groups()) == {
        "statistics",
        "tokenization",
        "scoring",
        "generation",
        "end to end",
    }
    assert len({each.key for each in told.records}) == len(told.records)
    for each in told.records:
        assert 0 < each.low <= each.median <= each.high
        assert each.rate > 0
        assert each.limit > 0
    names = [each.name for each in told.groups()["generation"]]
    for temperature in (0.1, 0.5, 1.0, 1.5):
        assert f"temperature {temperature}" in names
    assert str(folder / "baseline.html") in done.stdout.split()
    assert all(each.key in done.stderr for each in told.records)


def test_json_is_read_back_as_it_was(made):
    folder, _ = made
    text = (folder / "baseline.json").read_text()
    assert Report.read(folder / "baseline.json").to_json() == text


class Page(HTMLParser):
    """Collects the tags, and fails where they do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.texts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_no_other_file(made):
    folder, _ = made
    page = Page()
    page.feed((folder / "baseline.html").read_text())
    assert not page.open
    assert not page.links
    assert "script" not in page.tags
    assert page.tags.count("svg") >= 5


def test_texts_are_escaped():
    page = Page()
    page.feed(to_html(report([record("1 sequence", 1.0), record("4 sequences", 2.0)])))
    assert any("<b>&CPU|" in text for text in page.texts)
    assert "<b>&CPU\\|" in to_markdown(report([record("1 sequence", 1.0)]))


def test_both_reports_show_the_change():
    before = report([record("a", 1.0), record("b", 1.0), record("gone", 1.0)])
    after = report([record("a", 1.5), record("b", 1.0), record("new", 1.0)])
    changes = compare_reports(before, after)
    assert [(change.key, change.mark) for change in changes] == [
        ("generation: a", "slower"),
        ("generation: b", ""),
    ]
    assert "| generation: a | 1 s | 1.5 s | 1.50 | slower |" in to_markdown(after, changes)
    assert '<tr class="slower">' in to_html(after, changes)


@pytest.mark.parametrize(
    ("after", "spread", "arithmetic", "reading", "mark"),
    [
        (1.4, 0.01, 1.0, 1.0, "slower"),
        (0.7, 0.01, 1.0, 1.0, "faster"),
        (1.2, 0.01, 1.0, 1.0, ""),  # too little to be marked
        (1.4, 0.18, 1.0, 1.0, ""),  # the intervals overlap
        (1.4, 0.01, 1.3, 1.0, ""),  # the machine itself was slower by as much
        (1.4, 0.01, 1.0, 1.3, ""),
        (2.0, 0.01, 1.3, 1.0, "slower"),
        (2.0, 0.01, 0.7, 1.3, "slower"),
        (0.7, 0.01, 1.3, 1.3, "faster"),  # on a slower machine
        (0.7, 0.01, 0.7, 1.0, ""),
    ],
)
def test_what_is_beyond_noise(after, spread, arithmetic, reading, mark):
    pace = Pace(USUAL.arithmetic * arithmetic, USUAL.reading * reading)
    late = dataclasses.replace(record("a", after, spread), pace=pace)
    (change,) = compare_reports(report([record("a", 1.0, spread)]), report([late]))
    assert change.mark == mark
    assert change.ratio == pytest.approx(after)


def test_the_pace_is_that_of_the_machine():
    paces = [Pacer(threads).measure() for threads in (1, 2)]
    assert all(pace.arithmetic > 0 and pace.reading > 0 for pace in paces)
    slow = Pace(3e-3, 2e-3)
    assert USUAL.mean(slow) == Pace(2e-3, 2e-3)
    assert slow.slowdown(USUAL) == pytest.approx(3)
    assert USUAL.slowdown(slow) == 1
    joined = join_rounds(record("a", 1.0), dataclasses.replace(record("a", 1.0), pace=slow))
    assert joined.pace == Pace(2e-3, 2e-3)
    table = to_markdown(report([record("a", 1.0), dataclasses.replace(joined, pace=slow)]))
    assert "| slowest pace | 3.00 times the fastest in arithmetic, 1.00 in reading |" in table


@pytest.mark.parametrize(
    ("before", "after", "waited", "mark"),
    [
        (1.0, 2.0, 0.1, "slower"),
        (1.0, 2.0, 0.4, ""),  # alone it might have taken 1.2
        (1.0, 2.0, 1.0, ""),
        (2.0, 1.0, 0.9, "faster"),  # the faster one waited: it is faster still
    ],
)
def test_waiting_for_a_processor_is_no_change(before, after, waited, mark):
    late = dataclasses.replace(record("a", after), waited=waited)
    (change,) = compare_reports(report([record("a", before)]), report([late]))
    assert change.mark == mark
    joined = join_rounds(record("a", after), late)
    assert joined.waited == waited
    assert "| waited for a processor | " + f"{waited:.0%} of" in to_markdown(report([joined]))


def test_waiting_is_read_of_all_threads(tmp_path):
    for thread, text in {"1": "5 1000000000 2\n", "2": "5 500000000 2\n", "3": ""}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert seconds_waited(tmp_path) == 1.5
    assert seconds_waited(tmp_path / "nowhere") == 0
    assert seconds_waited() >= 0


@pytest.mark.parametrize("samples", [(2, 2), (2, 60), (60, 5)])
def test_few_samples_mark_nothing(samples):
    before, after = (record("a", 1.0, samples=samples[0]), record("a", 244.38, samples=samples[1]))
    (change,) = compare_reports(report([before]), report([after]))
    assert change.mark == ""


def test_two_rounds_are_one_record():
    first, second = record("a", 1.0, 0.01), record("a", 3.0, 0.1)
    joined = join_rounds(first, second)
    assert joined == Record(
        "generation", "a", "tokens", 2.0, first.low, second.high, 12, 50.0, 0.25, None, USUAL, 0.0
    )
    # What was slow in one round alone is no change, and what was in both is.
    once, twice = join_rounds(first, record("a", 1.5)), join_rounds(record("a", 1.4), second)
    before = join_rounds(first, record("a", 1.1))
    marks = [compare_reports(report([before]), report([new]))[0].mark for new in (once, twice)]
    assert marks == ["", "slower"]


def test_the_better_limits_of_two_rounds_count():
    other = dataclasses.replace(LIMITS, read=2e10, float32=1e10)
    assert LIMITS.or_better(other) == dataclasses.replace(LIMITS, read=2e10)


def test_large_rates_have_all_their_digits():
    rows = record_rows([record("a", 100 / 13163.4), record("b", 100 / 54.321)])
    assert [row[3] for row in rows] == ["13,163 tokens/s", "54.32 tokens/s"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: No such file"),
        ("{", "is not JSON"),
        ("[]", "is not a report"),
        ('{"format": 99}', "another format, should be 2"),
        ('{"format": 2}', "is not a report"),
    ],
)
def test_a_bad_file_to_compare_with_is_told_before_anything_is_measured(
    text, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(cli, "load_llm", lambda *_, **__: pytest.fail("the model was loaded"))
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        Report.read(path)
    done = CliRunner().invoke(cli.main, ["baseline", "--compare", str(path)])
    assert done.exit_code == 2
    assert "Error: " in done.output


def test_other_fields_of_a_record_are_told(tmp_path):
    data = json.loads(report([record("a", 1.0)]).to_json())
    data["records"][0]["color"] = "red"
    (tmp_path / "old.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="color"):
        Report.read(tmp_path / "old.json")


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "load_llm", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli.main, ["baseline", "-o", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert "cannot write to" in done.output


def test_the_limit_is_that_of_the_scarcer_resource():
    assert LIMITS.seconds(operations=1e11, bytes=1e9) == 1.0
    assert LIMITS.seconds(operations=1e9, bytes=1e10) == 1.0
    assert LIMITS.seconds(operations=4e11, arithmetic="int8") == 1.0
    case = Case("g", "n", lambda: sum(range(1000)), 10, "tokens", operations=1e5)
    found = measure_case(case, LIMITS, Pacer(1), 0.01, 3)
    assert found.limit == 1e-6
    assert found.share == found.limit / found.median
    assert found.rate == pytest.approx(10 / found.median)
    values = np.ones(10**5)
    read = dataclasses.replace(case, read=reader_of(values))
    assert 0 < measure_case(read, LIMITS, Pacer(1), 0.01, 3).limit < 0.1


def test_work_is_counted_from_the_matrices(tiny):
    decoder = LLM(tiny).engine.model.decoder
    work = ModelWork.of(decoder)
    config = decoder.config
    layer = decoder.layers[0]
    linears = (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down, layer.gate)
    weights = sum(linear.weight.rows * linear.weight.columns for linear in linears)
    assert work.layers == 2 * weights * len(decoder.layers)
    assert work.head == 2 * config.vocabulary * config.width
    operations, traffic = work.scoring(3, 4, 5)
    looked_at = 3 * (1 + 2 + 3)
    assert operations == 9 * (work.layers + work.head) + looked_at * work.attention
    assert traffic == 2 * work.weights  # 9 tokens in steps of 5
    operations, traffic = work.generation(3, 4, 2, at_once=2)
    looked_at = 3 * (1 + 2 + 3 + 4 + 5)
    assert operations == 15 * work.layers + 6 * work.head + looked_at * work.attention
    assert traffic == 2 * 2 * work.weights  # two rounds of two steps


def test_texts_are_as_long_as_asked_and_the_same_each_time():
    assert [len(text) for text in documents(3, 50)] == [50] * 3
    assert len(set(documents(64))) == 64
    assert long_text(10**6)[-(10**5) :] in long_text(10**6 + 1)
    assert len(long_text(10**7)) == 10**7


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values():
    drawing = ET.fromstring(svg.bars([("a & b", 1.0), ("c", 4.0), ("d", 0.0)], "x/s"))
    widths = [float(each.get("width")) for each in drawing.iter(f"{SVG}rect")]
    assert widths[0] == pytest.approx(widths[1] / 4, abs=0.1)
    assert widths[2] == 0
    assert "a & b" in [each.text for each in drawing.iter(f"{SVG}text")]
    ET.fromstring(svg.bars([], "x"))


def test_no_text_leaves_the_drawing():
    drawing = ET.fromstring(svg.bars([("a", 6789.0), ("b", 1.0)], "million values/s"))
    longest = next(each for each in drawing.iter(f"{SVG}text") if "6,789" in each.text)
    end = float(longest.get("x")) + svg.LETTER * len(longest.text)
    assert end <= float(drawing.get("width"))


def test_labels_of_close_points_do_not_lie_on_each_other():
    points = [(name, 10.0, 1e9) for name in ("first", "second", "third")] + [("far", 1e4, 1e9)]
    drawing = ET.fromstring(svg.roofline(points, 1e11, 1e9))
    names = [name for name, *_ in points]
    at = {e.text: numbers(e, "x", "y") for e in drawing.iter(f"{SVG}text") if e.text in names}
    heights = sorted(at[name][1] for name in ("first", "second", "third"))
    assert np.diff(heights) == pytest.approx([svg.LINE, svg.LINE])
    assert at["far"][1] == heights[0]


def test_a_line_goes_through_its_points():
    points = [(1, 10, 9, 11), (2, 20, 15, 22), (4, 40, 40, 40)]
    drawing = ET.fromstring(svg.line(points, "x", "y"))
    places = [numbers(each, "cx", "cy") for each in drawing.iter(f"{SVG}circle")]
    (x1, y1), (x2, y2), (x4, y4) = places
    assert x4 - x2 == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert y2 - y4 == pytest.approx(2 * (y1 - y2), abs=0.3)
    assert y4 < y2 < y1  # up is less in SVG


def test_the_roof_bends_where_bandwidth_meets_the_peak():
    drawing = ET.fromstring(svg.roofline([("k", 10.0, 1e10), ("m", 1.0, 1e9)], 1e11, 1e9))
    (roof,) = drawing.iter(f"{SVG}polyline")
    slope, bend, end = (tuple(map(float, each.split(","))) for each in roof.get("points").split())
    assert bend[1] == end[1] < slope[1]
    # Both points are on the slope: 1e9 operations a second for each operation a byte.
    for each in drawing.iter(f"{SVG}circle"):
        x, y = numbers(each, "cx", "cy")
        share = (x - slope[0]) / (bend[0] - slope[0])
        assert y == pytest.approx(slope[1] + share * (bend[1] - slope[1]), abs=0.2)
