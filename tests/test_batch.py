import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import BOS, EOS, NUM_RESERVED, PAD, UNK, Batch, gold_inputs, to_jax


def test_the_reserved_ids_are_the_first_ones():
    assert sorted({PAD, BOS, EOS, UNK}) == list(range(NUM_RESERVED))


def test_the_gold_input_is_the_previous_token_after_the_start_symbol():
    target = np.array([[7, 8, 9, EOS], [5, EOS, PAD, PAD]], np.int32)
    inputs = gold_inputs(target)
    assert inputs.tolist() == [[BOS, 7, 8, 9], [BOS, 5, EOS, PAD]]
    assert inputs.dtype == jnp.int32


def test_a_target_of_one_token_has_the_start_symbol_as_input():
    assert gold_inputs(np.array([[EOS]], np.int32)).tolist() == [[BOS]]


def test_ids_outside_the_masks_become_padding():
    ids, mask = np.array([[7, EOS, -100], [-1, -1, 99]]), np.array([[1, 1, 0], [0, 0, 0]])
    source, source_mask, target, target_mask = to_jax(Batch(ids, mask, ids - 1, mask))
    assert source.tolist() == [[7, EOS, PAD], [PAD] * 3]
    assert target.tolist() == [[6, EOS - 1, PAD], [PAD] * 3]
    assert source_mask.dtype == target_mask.dtype == bool
