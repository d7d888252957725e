"""Log-probabilities and sampling on a GPU, and launches that fail."""

import naive
import numpy as np
import pytest
from cuda_cases import SIMULATED, needs_device

from numbatch.kernels.scoring.cuda import logit_parts, logprob
from numbatch.kernels.scoring.cuda.sampling import RECORD, sample_kernel

pytestmark = needs_device


@pytest.mark.parametrize("piece_size", [32, 28])
def test_logprobs_from_pieces(gpu, piece_size):
    rng = np.random.default_rng(9)
    logits = (rng.standard_normal((4, 70)) * 5).astype(np.float32)
    logits[1, 40] = logits[1].max()
    logits[2, 3] = np.nan
    logits[0, 1:40] = -np.inf
    bias = rng.standard_normal(70).astype(np.float32)
    targets = np.array([0, 69, 5, int(np.argmax(naive.softcap((logits[3] + bias) * 2.0, 9.0)))])
    state = [gpu.empty(4, kind) for kind in (np.float32, np.float64, np.int32, np.float32)]
    d_targets = gpu.upload(targets.astype(np.int32))
    for low in range(0, 70, piece_size):
        piece = np.zeros((4, piece_size), np.float32)
        count = min(piece_size, 70 - low)
        piece[:, :count] = logits[:, low : low + count]
        gpu.launch(
            logprob.reduce_piece, 2, 3 if SIMULATED else 96, gpu.upload(piece), 4, low, count,
            gpu.upload(bias), np.float32(2), np.float32(9), d_targets, 0, *state,
        )  # fmt: skip
    found, greedy = gpu.empty(4, np.float32), gpu.empty(4, np.uint8)
    gpu.launch(logprob.finish_logprobs, 1, 4, 4, *state, d_targets, found, greedy)
    wanted = naive.log_softmax(naive.softcap((logits + bias).astype(np.float64) * 2, 9.0))
    wanted = wanted[np.arange(4), targets]
    found = gpu.download(found)
    assert np.isnan(found[2])
    assert np.allclose(found[[0, 1, 3]], wanted[[0, 1, 3]], atol=2e-5)
    assert gpu.download(greedy)[3] == 1
    assert gpu.download(greedy)[0] == 0


def draw(gpu, logits, params, seeds, process=None, prompt=None, wanted=2):
    """Sample rows on the GPU; return tokens, log-probabilities and the likeliest."""
    n, vocabulary = logits.shape
    history = np.array(prompt if prompt is not None else np.zeros((n, 1)), np.int32)
    past = history.shape[1]
    whole = np.array(
        [[params[6], past - 2 if past > 2 else past, seed, past + 9] for seed in seeds]
    )
    counts = gpu.zeros((n, vocabulary), np.int32)
    room = np.concatenate([history, np.zeros((n, 4), np.int32)], 1).astype(np.int32)
    record = gpu.zeros((n, RECORD + 2 * wanted), np.int32)
    d_logits, positions = gpu.upload(logits), gpu.upload(np.full(n, past - 1, np.int32))
    count = logit_parts.part_count(vocabulary)
    parts = gpu.empty((n, count, 2), np.float32), gpu.empty((n, count), np.float64)
    gpu.launch(
        logit_parts.reduce_logits, (count, n), 4 if SIMULATED else logit_parts.PART_THREADS,
        d_logits, vocabulary, positions, *parts,
    )  # fmt: skip
    gpu.launch(
        sample_kernel(process), n, 4 if SIMULATED else 512, d_logits, vocabulary, *parts,
        gpu.upload(np.tile(np.array(params[:6], np.float64), (n, 1))),
        gpu.upload(whole.astype(np.int64)), gpu.upload(np.full((n, 1), -1, np.int32)), counts,
        gpu.upload(room), True, gpu.zeros(n, np.int32),
        positions, wanted, record,
    )  # fmt: skip
    assert not gpu.download(counts).any()
    found = gpu.download(record)
    return found[:, 0], found.view(np.float32)[:, 1], found[:, RECORD : RECORD + wanted]


# temperature, top_p, min_p, repetition, presence, frequency, top_k


SAMPLING = [
    (0, 1, 0, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0, 0), (0.7, 0.8, 0, 1, 0, 0, 0),
    (1.3, 1, 0.1, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0, 5), (0.9, 0.9, 0.02, 1.3, 0.4, 0.2, 30),
]  # fmt: skip


@pytest.mark.parametrize("params", SAMPLING)
def test_the_same_coin_draws_the_cpus_token(gpu, params):
    from numbatch.kernels.scoring.row_states import reduce_rows, state_numbers
    from numbatch.kernels.scoring.sampling import ROW, sample_rows, sampling_scratch

    rng = np.random.default_rng(10)
    n, vocabulary = (4, 90) if SIMULATED else (200, 5000)
    logits = (rng.standard_normal((n, vocabulary)) * 3).astype(np.float32)
    history = rng.integers(0, vocabulary // 4, (n, 7))
    seeds = rng.integers(0, 2**62, n)
    got = draw(gpu, logits, params, seeds, prompt=history)
    sampling = np.empty(n, ROW)
    for i in range(n):
        sampling[i] = (*params[:3], params[6], *params[3:6], 5, seeds[i], 2, 0, 0)
    outputs = (
        np.empty(n, np.int64), np.empty(n, np.float32), np.empty((n, 2), np.int64),
        np.empty((n, 2), np.float32),
    )  # fmt: skip
    offsets = np.arange(n + 1) * 7
    scratch = sampling_scratch(1, vocabulary)[0]
    states = np.empty((n, state_numbers(vocabulary)), np.float32)
    reduce_rows(0, n, logits, states)
    args = (logits.copy(), states, sampling, history.ravel(), offsets)
    sample_rows(0, n, scratch, *args, *outputs)
    assert np.array_equal(got[0], outputs[0])
    assert np.allclose(got[1], outputs[1], atol=1e-5)
    assert np.array_equal(got[2], outputs[2])


def test_bad_logits_end_a_row_alone(gpu):
    logits = np.random.default_rng(11).standard_normal((4, 40)).astype(np.float32)
    logits[1, 7], logits[2] = np.nan, -np.inf
    tokens, _, _ = draw(gpu, logits, SAMPLING[1], [1, 2, 3, 4])
    assert tokens[1] == tokens[2] == -1
    assert (tokens[[0, 3]] >= 0).all()


def test_parts_of_a_row_are_joined(gpu):
    """The first of equal ones is taken, and a logit that is not a number is seen in any part."""
    rng = np.random.default_rng(12)
    logits = rng.standard_normal((4, 2 * logit_parts.PART + 6)).astype(np.float32)
    places = np.array([3000, 100, 4100, 5])
    logits[np.arange(4), places] = 9
    logits[0, 4000] = logits[1, 2100] = 9
    logits[3, 4101] = np.nan
    tokens, logprobs, _ = draw(gpu, logits, SAMPLING[0], [1, 2, 3, 4], wanted=0)
    assert tokens.tolist() == [3000, 100, 4100, -1]
    wanted = naive.log_softmax(logits[:3].astype(np.float64))[np.arange(3), places[:3]]
    assert np.allclose(logprobs[:3], wanted, atol=1e-6)


def test_a_users_function_is_compiled_in(gpu):
    from numbatch.kernels.cuda import cuda_device

    @cuda_device
    def only_even(logit, token, request, position):
        return logit if token % 2 == 0 else logit - np.float32(100)

    logits = np.random.default_rng(12).standard_normal((6, 50)).astype(np.float32)
    tokens, _, _ = draw(gpu, logits, SAMPLING[1], range(6), only_even)
    assert (tokens % 2 == 0).all()
