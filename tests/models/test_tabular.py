from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.tabular import make_tabular_model, tables_of_rows


def test_steps_and_sequence_give_the_same_logits():
    model = make_tabular_model(2, 2, length=3)
    params = jnp.arange(14.0).reshape(7, 2)
    tokens = np.array([[1, *rest] for rest in product(range(2), repeat=2)], np.int32)
    memory = model.encode(params, jnp.zeros((4, 1)), jnp.ones((4, 1), bool), None)
    carry, by_step = model.initial_carry(params, memory, 8), []
    for step in range(3):
        table = np.asarray(params)  # as `jax.device_get` gives it
        carry, logits = model.decode_step(table, memory, carry, jnp.asarray(tokens[:, step]))
        by_step.append(logits)
    at_once = model.decode_sequence(params, memory, jnp.asarray(tokens))
    assert np.array_equal(np.stack(by_step, axis=1), at_once)
    assert len({tuple(row) for row in np.asarray(at_once[:, 2]).tolist()}) == 4
    tables = tables_of_rows(params, 3)
    for row, tokens_of_row in zip(at_once, tokens, strict=True):
        for step in range(3):
            assert np.array_equal(row[step], tables[step][tuple(tokens_of_row[1 : step + 1])])


def test_the_start_symbol_and_the_source_change_nothing():
    model = make_tabular_model(3, 3, length=2)
    params = jax.random.normal(jax.random.key(0), (4, 3))
    memory = model.encode(params, jnp.ones((3, 5)), jnp.ones((3, 5), bool), None)
    logits = model.decode_sequence(params, memory, jnp.array([[0, 2], [1, 2], [2, 2]]))
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])


def test_after_an_id_outside_the_vocabulary_all_logits_are_nan():
    """They are not another prefix's row, and not the uniform distribution of a missing row."""
    model = make_tabular_model(2, 2, length=4)
    params = jnp.arange(30.0).reshape(15, 2)
    for wrong in (-1, -100, 2, 2**31 - 1):
        tokens, memory = jnp.array([[1, 0, wrong, 1], [1, 0, 1, 1]]), jnp.full(2, -1)
        at_once = model.decode_sequence(params, memory, tokens)
        carry, by_step = memory, []
        for step in range(4):
            carry, logits = model.decode_step(params, None, carry, tokens[:, step])
            by_step.append(logits)
        for logits in (at_once, jnp.stack(by_step, axis=1)):
            assert np.isnan(logits[0, 2:]).all()
            assert np.isfinite(logits[0, :2]).all()
            assert np.isfinite(logits[1]).all()


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="length is 0; it must be at least 1"):
        make_tabular_model(2, 2, length=0)
    with pytest.raises(ValueError, match="there are 7 rows; length 2 has 3"):
        tables_of_rows(jnp.zeros((7, 2)), 2)


def test_a_target_longer_than_the_table_is_refused():
    model = make_tabular_model(2, 2, length=2)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="targets of 3 tokens; the table ends at 2"):
        model.decode_sequence(params, jnp.full(1, -1), jnp.zeros((1, 3), jnp.int32))
    row, token = jnp.array([2]), jnp.array([1])  # after the last prefix
    assert jnp.isnan(model.decode_step(params, None, row, token)[1]).all()
