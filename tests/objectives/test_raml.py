import jax
import numpy as np
import pytest

from s2s_jax.batch import EOS, NUM_RESERVED, PAD, UNK
from s2s_jax.objectives.raml import check_raml, draw_targets, targets_key

KEY = jax.random.key(3)
VOCAB_SIZE = 9


def make_targets() -> tuple[np.ndarray, np.ndarray]:
    """Ids from 3 on, UNK among them, then EOS, then padding of any number."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 11, 3000)
    ids = generator.integers(UNK, VOCAB_SIZE, (3000, 10)).astype(np.int32)
    places = np.arange(10)
    ids[places == lengths[:, None] - 1] = EOS
    mask = places < lengths[:, None]
    return np.where(mask, ids, generator.choice([PAD, 7, -100], ids.shape)).astype(np.int32), mask


TARGET, MASK = make_targets()
SYMBOLS = MASK & (TARGET >= NUM_RESERVED)


def draw(tau: float, key: jax.Array = KEY, target=TARGET, mask=MASK) -> np.ndarray:
    return np.asarray(jax.jit(draw_targets, static_argnums=(3, 4))(target, mask, key, 9, tau))


@pytest.mark.parametrize("tau", [0.4, 1.0, 1e6])
def test_a_symbol_is_replaced_with_the_probability_that_the_reward_gives(tau):
    """P(y') is proportional to exp(-errors / tau), so it is a product over the symbols."""
    found = draw(tau)
    weights = np.exp(-np.arange(2) / tau) * [1, 4]  # the symbol itself, or one of 4 others
    share = weights[1] / weights.sum()
    replaced = found != TARGET
    number = SYMBOLS.sum()
    assert abs(replaced[SYMBOLS].mean() - share) < 4 * np.sqrt(share * (1 - share) / number)
    # One error does not make the next likelier.
    both = (SYMBOLS[:, 1:] & SYMBOLS[:, :-1]).sum()
    pairs = (replaced[:, 1:] & replaced[:, :-1]).sum()
    assert abs(pairs / both - share**2) < 5 * share / np.sqrt(both)


def test_each_of_the_other_symbols_is_as_likely():
    found = draw(0.7)
    for symbol in range(NUM_RESERVED, VOCAB_SIZE):
        replacements = found[SYMBOLS & (symbol == TARGET) & (found != TARGET)]
        shares = np.bincount(replacements, minlength=VOCAB_SIZE) / replacements.size
        expected = np.where(np.arange(VOCAB_SIZE) >= NUM_RESERVED, 0.25, 0)
        expected[symbol] = 0
        deviation = np.sqrt(expected * (1 - expected) / replacements.size)
        assert np.all(np.abs(shares - expected) <= 4 * deviation)


def test_end_symbols_padding_and_unknown_tokens_stay():
    found = draw(1e6)
    np.testing.assert_array_equal(found[~SYMBOLS], TARGET[~SYMBOLS])
    assert np.any(found[SYMBOLS] != TARGET[SYMBOLS])


@pytest.mark.parametrize("wrong", [-1, 9, 2**31 - 1])
def test_an_id_outside_the_vocabulary_stays_wrong(wrong):
    target = TARGET.copy()
    target[:, 0] = wrong
    assert np.all(draw(1e6, target=target)[:, 0] == wrong)


def test_a_tiny_temperature_leaves_every_token():
    for tau in (1e-300, 0.01):
        np.testing.assert_array_equal(draw(tau), TARGET)


def test_more_rows_and_a_longer_bucket_draw_the_same_errors():
    padded, mask = (np.pad(array, ((0, 5), (0, 3))) for array in (TARGET, MASK))
    np.testing.assert_array_equal(draw(0.7, target=padded, mask=mask)[:3000, :10], draw(0.7))


def test_errors_are_drawn_anew_for_each_key_and_not_from_the_feeds_streams():
    assert np.any(draw(0.7) != draw(0.7, key=jax.random.key(4)))
    assert jax.random.key_data(targets_key(KEY)).tolist() != jax.random.key_data(KEY).tolist()


@pytest.mark.parametrize("tau", [0.0, -1.0, 2e6, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match=rf"tau is {tau}; it must be in \(0, 1e6\]"):
        check_raml(10, tau)


def test_a_vocabulary_without_two_symbols_is_refused():
    check_raml(6, 0.5)
    with pytest.raises(ValueError, match="the vocabulary has fewer than 2 ids to choose from"):
        check_raml(5, 0.5)
