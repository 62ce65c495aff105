from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import EOS, PAD
from s2s_jax.edit_distance import edit_distance, extend_row, first_row, optimal_places
from tests.levenshtein import levenshtein

LETTERS = (4, 5, 6)
WORDS = [word for size in range(4) for word in product(LETTERS, repeat=size)]


def padded(words: list[tuple[int, ...]], time: int) -> tuple[np.ndarray, np.ndarray]:
    """The words with EOS, [len(words), time], and their mask."""
    ids, mask = np.full((len(words), time), PAD, np.int32), np.zeros((len(words), time), bool)
    for row, word in enumerate(words):
        ids[row, : len(word) + 1] = *word, EOS
        mask[row, : len(word) + 1] = True
    return ids, mask


def random_words(generator: np.random.Generator, number: int, longest: int) -> list:
    return [
        tuple(generator.integers(4, 7, generator.integers(longest + 1)).tolist())
        for _ in range(number)
    ]


def test_edit_distance_is_that_of_the_table_whatever_the_lengths():
    generator = np.random.default_rng(0)
    said, target = (random_words(generator, 300, longest) for longest in (9, 7))
    target[:20] = said[:20] = random_words(generator, 20, 7)
    (said_ids, said_mask), (ids, mask) = padded(said, 11), padded(target, 9)
    found = jax.jit(edit_distance)(said_ids, said_mask, ids, mask)
    expected = [levenshtein(*pair) for pair in zip(said, target, strict=True)]
    assert set(expected) >= set(range(8))
    np.testing.assert_array_equal(found, expected)


def test_edit_distance_ignores_what_is_outside_the_masks_and_a_missing_end_symbol():
    said, target = [(4, 5, 6), (4, 5), ()], [(4, 6), (4, 5), (5, 5, 5)]
    (said_ids, said_mask), (ids, mask) = padded(said, 5), padded(target, 4)
    said_ids = np.where(said_mask, said_ids, 5)  # as if it had been said there
    ids = np.where(mask, ids, -100)
    run = jax.jit(edit_distance)
    expected = [1, 0, 3]
    assert run(said_ids, said_mask, ids, mask).tolist() == expected
    cut_off = said_mask & (said_ids != EOS)
    assert run(said_ids, cut_off, ids, mask).tolist() == expected
    assert run(said_ids, np.zeros_like(said_mask), ids, mask).tolist() == [2, 2, 3]


def test_a_row_holds_the_distances_to_all_beginnings_of_the_target():
    generator = np.random.default_rng(1)
    target = generator.integers(4, 7, (40, 6)).astype(np.int32)
    said = generator.integers(4, 7, (5, 40)).astype(np.int32)

    @jax.jit
    def rows(target: jax.Array) -> jax.Array:
        def step(row: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = extend_row(row, target, token)
            return row, row

        return jax.lax.scan(step, first_row(target), jnp.asarray(said))[1]

    found = np.asarray(rows(target))
    for step, row, end in product(range(5), range(40), range(6)):
        prefix, goal = (tuple(one.tolist()) for one in (said[: step + 1, row], target[row, :end]))
        assert found[step, row, end] == levenshtein(prefix, goal)


def best_next(prefix: tuple[int, ...], target: tuple[int, ...]) -> set[int]:
    """The next tokens with which some completion ends at the least distance; EOS: at once."""
    costs = {EOS: levenshtein(prefix, target)}
    for letter in LETTERS:
        costs[letter] = min(levenshtein((*prefix, letter, *more), target) for more in WORDS)
    return {token for token, cost in costs.items() if cost == min(costs.values())}


def test_optimal_places_hold_the_tokens_of_the_best_of_all_completions():
    """Every target and every prefix of up to three letters, on an alphabet of three."""
    pairs = list(product(WORDS, WORDS))
    prefixes, targets = map(list, zip(*pairs, strict=True))
    ids, mask = padded(targets, 5)  # a column more than the longest needs

    @jax.jit
    def run(said: jax.Array, lengths: jax.Array) -> jax.Array:
        row = first_row(jnp.asarray(ids))
        for step in range(3):
            longer = extend_row(row, jnp.asarray(ids), said[:, step])
            row = jnp.where((step < lengths)[:, None], longer, row)
        return optimal_places(row, jnp.asarray(mask))

    found = run(padded(prefixes, 4)[0], np.array(list(map(len, prefixes))))
    sizes = set()
    for places, row, pair in zip(np.asarray(found), ids, pairs, strict=True):
        chosen = set(row[places].tolist())
        assert chosen == best_next(*pair), pair
        sizes.add(len(chosen))
    assert sizes == {1, 2, 3, 4}


def test_a_filler_row_has_no_optimal_place():
    ids, mask = padded([(4, 5)], 4)
    assert not np.any(optimal_places(first_row(jnp.asarray(ids)), jnp.zeros_like(mask)))
