"""The most expressive model possible: a separate distribution for every fed prefix."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from s2s_jax.models.interface import Seq2SeqModel

_LOG2_LARGEST = 26


def make_tabular_model(
    source_vocab_size: int, target_vocab_size: int, *, length: int = 4
) -> Seq2SeqModel:
    """Makes a model that is a table of logits, with a row for every prefix that can be fed.

        p(. | x_1 ... x_t) = softmax(params[row(x_1 ... x_t)])

    Rows share nothing and nothing is approximated, so the result of training is due only to the
    training method; `s2s_jax.theory` predicts it. The source is ignored. The first token fed, the
    start symbol, is ignored too; the empty prefix after it is row 0. After an id that is not in the
    vocabulary all logits are NaN.

    Args:
      source_vocab_size: ignored.
      target_vocab_size: V, the number of target ids, all of them symbols.
      length: the longest target, its end counted. The table has V**0 + ... + V**(length - 1) rows.

    Returns:
      The model's functions. Its parameters are one array [num_rows, vocab_size], initially 0, so
      that every distribution is uniform.

    Raises:
      ValueError: a number below 1, or a table of more than 2**26 numbers.

    Example:
      >>> model = make_tabular_model(2, 2, length=3)
      >>> model.init(jax.random.key(0)).shape
      (7, 2)
    """
    del source_vocab_size
    vocab_size = target_vocab_size
    for name, value in (("target_vocab_size", vocab_size), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if vocab_size > 1 and length * math.log2(vocab_size) > _LOG2_LARGEST:
        raise ValueError(
            f"length is {length}; a table of {vocab_size} target ids and that length is too large"
        )
    num_rows = sum(vocab_size**step for step in range(length))

    def advance(row: jax.Array, token: jax.Array) -> jax.Array:
        """The row after one more token; -1: nothing was fed yet, num_rows: there is no such row."""
        known = (token >= 0) & (token < vocab_size) & (row < num_rows)
        return jnp.where(row < 0, 0, jnp.where(known, row * vocab_size + 1 + token, num_rows))

    def decode_step(params, memory, carry, token):
        row = advance(carry, token)
        return row, jnp.asarray(params).at[row].get(mode="fill", fill_value=jnp.nan)

    def decode_sequence(params, memory, tokens):
        if tokens.shape[1] > length:
            raise ValueError(f"targets of {tokens.shape[1]} tokens; the table ends at {length}")

        def step(row: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = advance(row, token)
            return row, row

        rows = jax.lax.scan(step, memory, tokens.T)[1].T
        # A product, because the gradient of a lookup is a scatter, which is sequential on a CPU.
        chosen = jax.nn.one_hot(rows, num_rows, dtype=params.dtype)
        logits = jnp.matmul(chosen, params, precision="highest")
        return jnp.where(rows[..., None] < num_rows, logits, jnp.nan)

    return Seq2SeqModel(
        init=lambda key: jnp.zeros((num_rows, vocab_size)),
        encode=lambda params, source, source_mask, dropout_key: jnp.full(len(source), -1),
        initial_carry=lambda params, memory, max_length: memory,
        decode_step=decode_step,
        decode_sequence=decode_sequence,
        vocab_size=vocab_size,
    )


def tables_of_rows(rows: ArrayLike, length: int) -> Sequence[jax.Array]:
    """The rows of `make_tabular_model`'s table by step, in the form of `s2s_jax.theory.optimum`.

    Args:
      rows: [num_rows, vocab_size], the parameters or their softmax.
      length: as given to `make_tabular_model`.

    Returns:
      For each step t an array with t + 1 axes of vocab_size: [z_1, ..., z_t, b].

    Raises:
      ValueError: the number of rows does not fit.

    Example:
      >>> [table.shape for table in tables_of_rows(jnp.zeros((7, 2)), length=3)]
      [(2,), (2, 2), (2, 2, 2)]
    """
    rows = jnp.asarray(rows)
    vocab_size = rows.shape[-1]
    starts = [sum(vocab_size**before for before in range(step)) for step in range(length + 1)]
    if len(rows) != starts[-1]:
        raise ValueError(f"there are {len(rows)} rows; length {length} has {starts[-1]}")
    return [
        rows[start:end].reshape((vocab_size,) * (step + 1))
        for step, (start, end) in enumerate(itertools.pairwise(starts))
    ]
