import math

import numpy as np
import pytest

from numbatch import ScoreResult
from numbatch.batching.results import perplexity_of


def test_perplexity_of_extremes():
    assert math.isnan(perplexity_of(0.0, 0))
    assert perplexity_of(-1e9, 3) == math.inf
    assert perplexity_of(-2 * math.log(5), 2) == pytest.approx(5)


def test_unscored_places_do_not_count():
    logprobs = np.array([np.nan, -1, np.nan, -3], np.float32)
    result = ScoreResult("a", "text", np.arange(4), logprobs, np.zeros(4, bool))
    assert (result.tokens_scored, result.sum_logprob) == (2, -4)
    assert result.perplexity == pytest.approx(math.exp(2))
