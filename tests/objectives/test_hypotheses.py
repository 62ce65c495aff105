import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import BOS, EOS
from s2s_jax.objectives.hypotheses import begin_hypotheses

MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)


def counts(tokens: list[list[int]], margin: int) -> list[list[float]]:
    """Whether each step counts, by row, when these tokens are fed after the start symbol."""
    state, found = begin_hypotheses(jnp.asarray(MASK), margin), []
    for column in np.array([[BOS, *row] for row in tokens]).T:
        state = state.after(jnp.asarray(column))
        found.append(state.counts)
    return np.stack(found, axis=1).tolist()


def test_a_step_counts_until_the_end_symbol_is_fed_or_the_cap_is_reached():
    # The first says EOS as its second token, and its prediction counted; the others never do.
    tokens = [[7, EOS, 8, 8, 8], [7] * 5, [7] * 5, [7] * 5]
    assert counts(tokens, margin=1) == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],  # two gold tokens and one more
        [0, 0, 0, 0, 0, 0],  # a filler row
        [1, 1, 1, 1, 1, 0],
    ]


def test_gold_prefixes_count_as_often_as_the_gold_tokens_whatever_the_margin():
    tokens = [[7, 7, EOS, 0, 0], [7, EOS, 0, 0, 0], [0] * 5, [7, 7, 7, EOS, 0]]
    for margin in (0, 2):
        found = np.array(counts(tokens, margin))
        np.testing.assert_array_equal(found[:, :4], MASK)
        assert not np.any(found[:, 4:])
