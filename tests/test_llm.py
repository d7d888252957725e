"""The Python interface on a tiny model: shapes, order, splits and errors."""

import numpy as np
import pytest
from tiny_models import write_huggingface

from numbatch import LLM, InputError, SamplingParams


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return LLM(folder)


GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


def test_results_stand_in_input_order(llm):
    prompts = ["a", "the rest of it", [1, 2, 3], np.array([5])]
    results = llm.generate(prompts, GREEDY)
    assert [result.id for result in results] == [0, 1, 2, 3]
    assert [result.prompt for result in results] == ["a", "the rest of it", "", ""]
    assert results[2].prompt_token_ids.tolist() == [1, 2, 3]
    for prompt, result in zip(prompts, results, strict=True):
        (alone,) = llm.generate([prompt], GREEDY)
        assert alone.text == result.text
        assert result.cumulative_logprob == pytest.approx(result.logprobs.sum(), abs=1e-5)


def test_a_single_prompt_is_taken_as_one(llm):
    assert len(llm.generate("that", GREEDY)) == 1
    assert len(llm.generate(np.array([4, 5, 6]), GREEDY)) == 1
    assert len(llm.score("that")) == 1
    assert llm.generate([], GREEDY) == []
    assert len(llm.score([])) == 0


def test_each_prompt_may_have_parameters_and_an_id_of_its_own(llm):
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (1, 5)]
    results = llm.generate(["x", "y"], params, ids=["first", 7])
    assert [(result.id, len(result.token_ids)) for result in results] == [("first", 1), (7, 5)]


def test_top_logprobs_are_reported_where_asked(llm):
    params = [SamplingParams(temperature=0, max_tokens=3, logprobs=n) for n in (None, 0, 2)]
    none, zero, two = llm.generate(["x"] * 3, params)
    assert none.top_token_ids.shape == zero.top_token_ids.shape == (3, 0)
    assert two.top_token_ids.shape == two.top_logprobs.shape == (3, 2)
    assert two.top_token_ids[:, 0].tolist() == two.token_ids.tolist()
    assert np.array_equal(two.top_logprobs[:, 0], two.logprobs)


def test_scores_belong_to_the_tokens_of_encode(llm):
    texts = ["that is it", "a", "another one"]
    scores = llm.score(texts)
    assert scores.values.dtype == np.float32
    for text, row in zip(texts, scores, strict=True):
        assert len(row) == len(llm.encode(text))
        assert np.isnan(row[0])
        assert np.all(row[1:] < 0)


def test_perplexity(llm):
    texts = ["that is it", "the other", "a"]
    scores = [row[1:] for row in llm.score(texts)]
    found = llm.perplexity(texts)
    expected = [np.exp(-row.mean()) if len(row) else np.nan for row in scores]
    np.testing.assert_allclose(found.texts, expected, rtol=1e-5)
    assert found.corpus == pytest.approx(np.exp(-np.concatenate(scores).mean()), rel=1e-5)
    assert found.tokens == sum(map(len, scores))
    size = sum(len(text) - len(llm.tokenizer.token_bytes(llm.encode(text)[0])) for text in texts)
    nats = -np.concatenate(scores).sum()
    assert found.bits_per_byte == pytest.approx(nats / np.log(2) / size, rel=1e-5)


def test_spaces_that_end_the_context_count_to_the_continuation(llm):
    a, b = llm.loglikelihood([("so it is ", "that"), ("so it is", " that")])
    assert a == b
    whole = llm.encode("so it is that")
    begin = len(llm.encode("so it is"))
    assert a.logprob == pytest.approx(llm.score(whole)[0][begin:].sum(), abs=1e-5)


def test_a_continuation_is_greedy_if_greedy_decoding_gives_it(llm):
    (result,) = llm.generate("so it is", SamplingParams(temperature=0, max_tokens=1))
    best = result.token_ids[0]
    context = llm.encode("so it is")
    logprob = llm.score(np.append(context, best))[0][-1]
    assert logprob == pytest.approx(float(result.logprobs[0]), abs=1e-6)
    others = llm.score_results([np.append(context, t) for t in (best, (best + 1) % 256)])
    assert [bool(each.greedy[-1]) for each in others] == [True, False]


@pytest.mark.parametrize("normalize", [None, "tokens", "bytes"])
def test_choose(llm, normalize):
    options = [" a", " that is the other", " it"]
    found = llm.choose("so", options, normalize=normalize)
    logprobs = np.array([x.logprob for x in llm.loglikelihood([("so", o) for o in options])])
    lengths = {
        None: [1, 1, 1],
        "bytes": [len(option) for option in options],
        "tokens": [len(llm.encode("so" + o)) - len(llm.encode("so")) for o in options],
    }[normalize]
    assert np.array_equal(found.logprobs, logprobs)
    np.testing.assert_allclose(found.scores, logprobs / lengths)
    assert found.index == int(np.argmax(logprobs / lengths))
    assert found.text == options[found.index]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda llm: llm.generate(["ok", ""]), "request 1 is empty"),
        (lambda llm: llm.generate(["x" * 500]), "request 0 has .* more than the context of 128"),
        (lambda llm: llm.generate([[1, 300]]), "token id 300 at place 1"),
        (lambda llm: llm.generate([[0.5]]), "should be a text or a list of token ids"),
        (lambda llm: llm.generate(["\ud800"]), "surrogate"),
        (lambda llm: llm.generate([b"\xff"]), "UTF-8"),
        (lambda llm: llm.generate(["a", "b"], [GREEDY]), "1 sampling parameters for 2 prompts"),
        (lambda llm: llm.generate(["a", "b"], ids=["x", "x"]), "id 'x' stands at 0 and at 1"),
        (lambda llm: llm.generate(["a"], ids=["x", "y"]), "2 ids for 1 prompts"),
        (lambda llm: llm.generate(["a"], ids=[""]), "should be a non-empty text"),
        (lambda llm: llm.generate(["a"], ids=[1.5]), "id 0 is 1.5"),
        (lambda llm: llm.score(["ok", ""]), "text 1 is empty"),
        (lambda llm: llm.perplexity([""]), "text 0 is empty"),
        (lambda llm: llm.loglikelihood([("a", "")]), "the continuation of pair 0 is empty"),
        (lambda llm: llm.loglikelihood(["ab", "c"]), "should be .context, continuation."),
        (lambda llm: llm.choose("a", []), "should be a list of at least one text"),
        (lambda llm: llm.choose("a", "bc"), "should be a list of at least one text"),
        (lambda llm: llm.choose("a", ["b"], normalize="x"), "normalize is 'x'"),
        (lambda llm: llm.chat([{"role": "user", "content": "hi"}]), "chat template"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(llm, call, message):
    with pytest.raises(InputError, match=message):
        call(llm)
    assert len(llm.score("still sound")) == 1
