"""After a warm-up nothing is left to compile, and the command says what was compiled."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import write_huggingface

from numbatch import LLM, Request, SamplingParams
from numbatch.batching.commands import cli
from numbatch.batching.warmup import compilations, warm_up
from numbatch.kernels.jit import cpu_device, cpu_kernel


@pytest.fixture
def folder(tmp_path):
    write_huggingface("llama", tmp_path)
    return tmp_path


def test_nothing_is_compiled_after_a_warm_up(folder):
    llm = LLM(folder)
    warm_up(llm)
    with compilations() as found:
        llm.generate(["abc", "some more"], SamplingParams(temperature=0, max_tokens=3))
        long = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)  # repeats itself
        llm.generate([np.zeros(8, np.int64), np.ones(8, np.int64)], long)
        llm.generate(["abc"], SamplingParams(top_k=3, presence_penalty=1, max_tokens=3, logprobs=1))
        llm.score(["a", "a longer text"])
        llm.loglikelihood([("a", "b")])
        llm.run([Request(7, np.zeros(40, np.int64)), Request("x", np.zeros(2, np.int64))])
    assert (found.kernels, found.functions, found.seconds) == (0, 0, 0.0)


def test_the_command_says_what_was_compiled(folder):
    runner, command = CliRunner(), ["warmup", "-m", str(folder), "--compute", "float32"]
    runner.invoke(cli.main, command)
    result = runner.invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert re.match(r"0 kernels were compiled \(0 functions\) in 0.0 s", result.output)


def test_an_unknown_arithmetic_is_refused():
    result = CliRunner().invoke(cli.main, ["warmup", "--compute", "float64"])
    assert result.exit_code == 2
    assert "float64" in result.output


def test_compiled_functions_are_counted():
    @cpu_device(general=True)
    def general(number, flag):
        return number + 1 if flag else number

    @cpu_device
    def special(number):
        return number * 2

    @cpu_kernel
    def kernel(x):
        return general(x, False) + general(3, True) + special(1) + special(x)

    with compilations() as found:
        assert kernel(5) == 5 + 4 + 2 + 10
    # One of the kernel, one of ``general``; one for the constant 1 and one for any number.
    assert (found.kernels, found.functions) == (1, 4)
    assert found.seconds > 0
    with compilations() as found:
        kernel(6)
    assert found.kernels == 0
