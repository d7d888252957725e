"""The command line: its options, its exit statuses, and what a process leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest
from click.testing import CliRunner
from fake_llm import FakeLLM
from tiny_models import write_huggingface

from numbatch import LLM, SamplingParams
from numbatch.batching.commands import cli
from numbatch.batching.commands.compiling import told_of_compiling
from numbatch.version import __version__

PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_llm.py"))]
GOOD = '{"custom_id": "a", "prompt": "x"}\n{"custom_id": "b", "text": "abc"}\n'


@pytest.fixture
def fake(monkeypatch):
    """Put the fake model in the real one's place; return the options that it was loaded with."""
    asked = []

    def load(model, **options):
        asked.append((model, {key: value for key, value in options.items() if value is not None}))
        return FakeLLM()

    monkeypatch.setattr(cli, "load_llm", load)
    return asked


@pytest.fixture
def no_model(monkeypatch):
    """Fail where the model is loaded."""
    monkeypatch.setattr(cli, "load_llm", lambda *_, **__: pytest.fail("the model was loaded"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return str(folder)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(GOOD)
    return path


def invoke(*args, **options):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], **options)


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_help_and_version_import_nothing_heavy():
    program = (
        "import sys; from numbatch.batching.commands.cli import main\n"
        "for args in (['--help'], ['run', '--help'], ['--version']):\n"
        "    main(args, standalone_mode=False)\n"
        "print({'numba', 'numpy', 'tqdm', 'jinja2'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    assert f"numbatch, version {__version__}" in done.stdout


def test_help_shows_the_kinds_of_requests_as_a_table():
    said = invoke("run", "--help").output
    assert '\n    "text": "..." or token ids                score a text\n' in said


def test_the_package_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "numbatch", "--version"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"numbatch, version {__version__}\n"


def test_run_writes_results_and_a_summary(fake, source, tmp_path):
    output = tmp_path / "out.jsonl"
    done = invoke("run", source, "-o", output, "--model", "m", "--max-num-seqs", 3, "--seed", 4)
    assert done.exit_code == 0, done.output
    assert [result["custom_id"] for result in read(output)] == ["b", "a"]
    assert fake == [("m", {"max_num_seqs": 3, "seed": 4})]
    assert "Requests    2 succeeded, 0 failed" in done.stderr
    assert f"Results     2 in {output}" in done.stderr
    assert "it/s" not in done.stderr
    assert done.stdout == ""


def test_run_reads_and_writes_the_standard_streams(fake):
    done = invoke("run", "-", "-q", input=GOOD)
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["custom_id"] for line in done.stdout.splitlines()] == ["b", "a"]
    assert done.stderr == ""


def test_run_ends_with_1_if_a_request_failed(fake, source, tmp_path):
    source.write_text(GOOD + "not json\n")
    done = invoke("run", source, "-o", tmp_path / "out.jsonl")
    assert done.exit_code == 1
    assert "2 succeeded, 1 failed" in done.stderr
    assert len(read(tmp_path / "out.jsonl")) == 3


@pytest.mark.usefixtures("no_model")
def test_run_refuses_bad_files_before_the_model_is_loaded(source, tmp_path):
    old = tmp_path / "old.jsonl"
    old.write_text("{}\n")
    for args, said in [
        ((tmp_path / "missing", "-o", tmp_path / "out"), "No such file or directory"),
        ((tmp_path, "-o", tmp_path / "out"), "Is a directory"),
        ((source, "-o", tmp_path / "missing" / "out"), "there is no folder"),
        ((source, "-o", old), "--overwrite"),
        ((source, "-o", source, "--overwrite"), "input and output both"),
    ]:
        done = invoke("run", *args)
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("Error: ")
        assert said in done.stderr
        assert done.stdout == ""
    assert old.read_text() == "{}\n"
    assert source.read_text() == GOOD


def test_run_replaces_an_output_if_asked(fake, source, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("x" * 10_000)
    assert invoke("run", source, "-o", output, "--overwrite").exit_code == 0
    assert len(read(output)) == 2


def test_a_model_that_is_not_there_ends_with_2_and_loses_no_old_results(source, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("old\n")
    done = invoke("run", source, "-o", output, "--overwrite", "-m", tmp_path / "no.gguf")
    assert done.exit_code == 2
    assert "names no model" in done.stderr
    assert output.read_text() == "old\n"


def test_bad_options_end_with_2(fake):
    for args, said in [
        (("run", "-", "--threads", 0), "0 is not in the range x>=1"),
        (("run",), "Missing argument 'INPUT'"),
        (("generate", "x", "--top-p", 2), "top_p is 2.0, should be a number in (0, 1]"),
        (("generate", "x", "--stop", ""), "none empty"),
        (("score", "missing.txt"), "cannot read missing.txt"),
    ]:
        done = invoke(*args)
        assert done.exit_code == 2
        assert said in done.stderr
    assert fake == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("output", ["/dev/full", "-"])
def test_a_full_disk_ends_with_1_and_one_message(source, output):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "run", str(source), "-o", output], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    said = done.stderr.decode()
    assert said.startswith("Error: cannot write to ")
    assert "No space left on device; 0 results are whole" in said
    assert said.count("\n") == 1


def test_a_closed_pipe_ends_with_1_and_one_message(source):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run([*PROGRAM, "run", str(source)], stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: cannot write to standard output: Broken pipe; 0 results")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_leaves_the_finished_results(tmp_path, number, status):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "x"}\n' * 4 + '{"prompt": "sleep"}\n{"prompt": "x"}\n')
    process = subprocess.Popen(
        [*PROGRAM, "run", str(source), "-o", str(output)], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not output.exists() or output.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert process.returncode == status
    assert sorted(result["custom_id"] for result in read(output)) == [
        *("line-1", "line-2", "line-3", "line-4", "line-6")
    ]
    if number == signal.SIGINT:
        assert said == f"Interrupted: 5 results are whole in {output}.\n"


def test_an_interrupt_while_the_model_loads_ends_with_130(monkeypatch, source):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_llm", interrupted)
    done = invoke("run", source)
    assert (done.exit_code, done.stderr) == (130, "Interrupted.\n")


def test_run_on_a_model(tiny, tmp_path):
    prompts = [{"custom_id": i, "prompt": "that " * (i + 1), "seed": i} for i in range(5)]
    scored = {"custom_id": "s", "context": "the", "continuation": " rest"}
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, [*prompts, scored, {"text": [999]}])))
    done = invoke("run", source, "-o", output, "-m", tiny, "--threads", 1, "--max-num-seqs", 2)
    assert done.exit_code == 1, done.output
    results = {result["custom_id"]: result for result in read(output)}
    assert len(results) == 7
    assert "token id 999" in results["line-7"]["error"]
    llm = LLM(tiny, threads=1)
    for prompt in prompts:
        params = SamplingParams(seed=prompt["seed"])
        (expected,) = llm.generate([prompt["prompt"]], params)
        assert results[prompt["custom_id"]]["token_ids"] == expected.token_ids.tolist()
        assert results[prompt["custom_id"]]["text"] == expected.text
    (likelihood,) = llm.loglikelihood([("the", " rest")])
    assert results["s"]["sum_logprob"] == pytest.approx(likelihood.logprob)
    assert results["s"]["is_greedy"] is likelihood.is_greedy


def test_compiling_is_told_once_and_timed(capsys):
    def compile_two():
        with told_of_compiling():
            for _ in range(2):
                numba.njit(lambda x: x + 1)(1)

    compile_two()
    begin, end = capsys.readouterr().err.splitlines()
    assert begin.startswith("Compiling kernels")
    assert re.fullmatch(r"Compiled    2 kernels in [0-9]+\.[0-9] s", end)
    with told_of_compiling():
        pass
    assert capsys.readouterr().err == ""


def test_a_quiet_run_tells_nothing(tiny, source, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "told_of_compiling", lambda: pytest.fail("it was told"))
    result = invoke("run", source, "-o", tmp_path / "out", "-m", tiny, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_generate_prints_what_follows(tiny):
    args = ("-m", tiny, "--threads", 1, "--temperature", 0, "--max-tokens", 5, "--ignore-eos")
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    one, two = (result.text for result in LLM(tiny).generate(["that", "rest"], params))
    done = invoke("generate", "that", *args)
    assert (done.exit_code, done.stdout) == (0, f"{one}\n"), done.output
    assert invoke("generate", "-", *args, input="that\n").stdout == f"{one}\n"
    both = invoke("generate", "that", "rest", *args).stdout
    assert both == f"==> that <==\n{one}\n==> rest <==\n{two}\n"
    done = invoke("generate", "that", "--chat", *args)
    assert done.exit_code == 2
    assert "no chat template" in done.stderr
    assert invoke("generate", "", *args).exit_code == 2


def test_score_prints_a_table_or_json(fake, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo!\n")
    done = invoke("score", path, "-")
    assert done.exit_code == 2
    assert "standard input is empty" in done.stderr
    done = invoke("score", path, "-", input="abc")
    assert done.exit_code == 0, done.output
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names == ["text", str(path), "standard input", "all texts"]
    done = invoke("score", path, "--lines", "--json", "--tokens")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["tokens_scored"] for record in records] == [2, 3, 5]
    assert [token["token"] for token in records[0]["tokens"]] == ["o", "n", "e"]


def test_score_refuses_a_text_longer_than_the_context(fake, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("x" * 60)
    done = invoke("score", path)
    assert done.exit_code == 2
    assert f"{path} has 60 tokens, more than the context of 50" in done.stderr


def test_fetch_prints_where_the_model_is(monkeypatch, tiny, tmp_path):
    kept = tmp_path / "kept.gguf"
    monkeypatch.setattr("numbatch.models.fetch.fetch", lambda *, verify: kept if verify else None)
    done = invoke("fetch")
    assert (done.exit_code, done.stdout) == (0, f"{kept}\n"), done.output
    assert invoke("fetch", tiny).stdout == f"{tiny}\n"
    done = invoke("fetch", "smollm3")
    assert done.exit_code == 2
    assert "'smollm3' names no model" in done.stderr
