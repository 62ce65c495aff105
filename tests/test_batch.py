import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import BOS, EOS, NUM_RESERVED, PAD, UNK, gold_inputs


def test_the_reserved_ids_are_the_first_ones():
    assert sorted({PAD, BOS, EOS, UNK}) == list(range(NUM_RESERVED))


def test_the_gold_input_is_the_token_before_behind_the_start_symbol():
    target = np.array([[7, 8, 9, EOS], [5, EOS, PAD, PAD]], np.int32)
    inputs = gold_inputs(target)
    assert inputs.tolist() == [[BOS, 7, 8, 9], [BOS, 5, EOS, PAD]]
    assert inputs.dtype == jnp.int32


def test_a_target_of_one_token_has_the_start_symbol_as_input():
    assert gold_inputs(np.array([[EOS]], np.int32)).tolist() == [[BOS]]
