"""Likeliest tokens of prompts and texts, and a user's own function of each scored token."""

import numba
import numpy as np
import pytest
from tiny_models import VOCABULARY, write_huggingface

from numbatch.batching.engine import Engine
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import FailedResult
from numbatch.errors import InputError
from numbatch.models.load import load_model

TEXTS = [np.random.default_rng(i).integers(0, VOCABULARY - 2, 4 + 13 * i) for i in range(6)]


@numba.njit
def margin(logits, target, position):
    """How far the target is behind the likeliest token."""
    return logits[target] - logits.max()


@numba.njit
def place_of(logits, target, position):
    return position + target / 1000


@numba.njit
def raise_at_seven(logits, target, position):
    if position == 7:
        raise RuntimeError("seven")
    return 0.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return load_model(folder)


def run(model, requests, **options):
    return {result.id: result for result in Engine(model, **options).run(requests)}


def test_the_log_probabilities_are_the_same_bits_as_without(model):
    plain = run(model, [Request(i, text) for i, text in enumerate(TEXTS)])
    rich = run(
        model,
        [
            Request(i, text, prompt_logprobs=3 * (i % 2), scorer=margin)
            for i, text in enumerate(TEXTS)
        ],
        max_num_batched_tokens=29,
        threads=3,
    )
    for i, text in enumerate(TEXTS):
        assert np.array_equal(plain[i].logprobs, rich[i].logprobs, equal_nan=True)
        assert np.array_equal(plain[i].greedy, rich[i].greedy)
        assert plain[i].scores.shape == (0,)
        assert np.isnan(rich[i].scores[0])
        assert np.array_equal(rich[i].scores[1:] == 0, rich[i].greedy[1:])
        assert rich[i].top_token_ids.shape == (len(text), 3 * (i % 2))


def test_the_likeliest_tokens_of_a_text(model):
    (result,) = run(model, [Request(0, TEXTS[5], prompt_logprobs=100)]).values()
    assert (result.top_token_ids[0] == -1).all()
    assert np.isnan(result.top_logprobs[0]).all()
    top, values = result.top_token_ids[1:], result.top_logprobs[1:]
    assert (np.diff(values, axis=1) <= 0).all()
    assert np.array_equal(top[:, 0] == TEXTS[5][1:], result.greedy[1:])
    rows, ranks = np.nonzero(top == TEXTS[5][1:, None])
    assert len(rows) > 3
    np.testing.assert_allclose(values[rows, ranks], result.logprobs[1:][rows], atol=1e-6)


def test_a_scorer_is_told_the_target_and_its_place(model):
    results = run(model, [Request(0, TEXTS[3], score_from=5, scorer=place_of)], threads=2)
    scores = results[0].scores
    assert np.isnan(scores[:5]).all()
    np.testing.assert_allclose(scores[5:], np.arange(5, len(scores)) + TEXTS[3][5:] / 1000)


def test_prompts_of_generations(model):
    params = SamplingParams(prompt_logprobs=2, temperature=0, max_tokens=4, ignore_eos=True)
    own = SamplingParams(prompt_logprobs=0, temperature=0, max_tokens=4, ignore_eos=True)
    none = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    text = TEXTS[4]
    scored = run(model, [Request(0, text, prompt_logprobs=2)])[0]
    engine = Engine(model, max_num_batched_tokens=17)
    for _ in range(2):  # the second time the prompt is cached, and computed anew all the same
        requests = [Request(n, text, each) for n, each in enumerate((params, own, none))]
        two, zero, nothing = sorted(engine.run(requests), key=lambda result: result.id)
        assert np.array_equal(two.prompt_logprobs, scored.logprobs, equal_nan=True)
        assert np.array_equal(zero.prompt_logprobs, scored.logprobs, equal_nan=True)
        assert np.array_equal(two.prompt_top_token_ids, scored.top_token_ids)
        assert np.array_equal(two.prompt_top_logprobs, scored.top_logprobs, equal_nan=True)
        assert zero.prompt_top_token_ids.shape == (len(text), 0)
        assert nothing.prompt_logprobs.shape == (0,)
        assert two.token_ids.tolist() == zero.token_ids.tolist() == nothing.token_ids.tolist()
        assert len(two.logprobs) == 4


def test_a_scorer_that_raises_fails_its_text_alone(model):
    requests = [
        Request("bad", TEXTS[2], scorer=raise_at_seven),
        Request("short", TEXTS[0], scorer=raise_at_seven),
        Request("good", TEXTS[2]),
    ]
    results = run(model, requests)
    assert isinstance(results["bad"], FailedResult)
    assert results["bad"].error == "scorer raised RuntimeError at token 7: seven"
    assert (results["short"].scores[1:] == 0).all()
    assert np.isfinite(results["good"].logprobs[1:]).all()


def test_what_is_no_scorer_is_refused(model):
    with pytest.raises(InputError, match="scorer is a function that is not compiled"):
        Request(0, TEXTS[0], scorer=margin.py_func)
    with pytest.raises(InputError, match=r"scorer takes \(logits\), should take three"):
        Request(0, TEXTS[0], scorer=numba.njit(lambda logits: 0.0))
    with pytest.raises(InputError, match="prompt_logprobs is 101"):
        Request(0, TEXTS[0], prompt_logprobs=101)
    text = numba.njit(lambda logits, target, position: "text")
    with pytest.raises(InputError, match="scorer does not compile"):
        Engine(model).submit(Request(0, TEXTS[0], scorer=text))
