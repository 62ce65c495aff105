"""Distributions of the next symbol: as functions of prefixes, and as tables over all of them.

Symbols are 0 ... num_symbols - 1, and sequences have one length.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.batch import BOS
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel
from s2s_jax.theory.chains import MAX_SEQUENCES

NextTokenProbs = Callable[[np.ndarray], ArrayLike]
"""prefixes [num_prefixes, t] int32 -> probabilities of the next symbol [num_prefixes, num_symbols].

The empty prefix is [num_prefixes, 0].
"""

Tables = Sequence[np.ndarray]
"""For each step t an array with t + 1 axes of num_symbols: p(b | y_1 ... y_t).

`s2s_jax.theory.optimum` makes them for a truth, and for the optimum of scheduled sampling.
"""


def tabulate(
    next_token_probs: NextTokenProbs, num_symbols: int, length: int
) -> tuple[np.ndarray, ...]:
    """Tabulates a function of prefixes over all prefixes.

    Args:
      next_token_probs: prefixes [n, t] -> [n, num_symbols]; called once for each t < length.
      num_symbols: the number of different symbols.
      length: of the sequences; num_symbols**length is at most `MAX_SEQUENCES`.

    Returns:
      Tables: for each step t an array with t + 1 axes of num_symbols.

    Raises:
      ValueError: there are too many sequences, or the function returns a wrong shape.

    Example:
      >>> [table.shape for table in tabulate(lambda prefix: np.full((len(prefix), 2), 0.5), 2, 3)]
      [(2,), (2, 2), (2, 2, 2)]
    """
    if length < 1 or num_symbols < 1:
        raise ValueError(f"length is {length} and num_symbols {num_symbols}; both are at least 1")
    if num_symbols**length > MAX_SEQUENCES:
        raise ValueError(
            f"{num_symbols} symbols have {num_symbols**length} sequences of length {length}; at"
            f" most {MAX_SEQUENCES} can be enumerated, so draw sequences instead"
        )
    tables = []
    for step in range(length):
        shape = (num_symbols,) * step
        prefixes = np.indices(shape, np.int32).reshape(step, num_symbols**step).T
        tables.append(ask(next_token_probs, prefixes, num_symbols).reshape(*shape, num_symbols))
    return tuple(tables)


def make_next_token_probs(
    model: Seq2SeqModel,
    params: Params,
    source: ArrayLike,
    source_mask: ArrayLike,
    symbol_ids: ArrayLike,
    length: int,
    *,
    batch_size: int = 256,
) -> NextTokenProbs:
    """A model's distribution of the next symbol, as a function of prefixes.

        q(b | prefix) = p(id_b | prefix, source) / sum_c p(id_c | prefix, source)

    It is compiled once, whatever the number and length of the prefixes.

    Args:
      model: the functions of `Seq2SeqModel`.
      params: its parameters.
      source: [num_sources, source_time] int32 ids. A single source is used for every prefix. With
        several, source i belongs to prefix i, and there are as many prefixes as sources.
      source_mask: [num_sources, source_time] bool.
      symbol_ids: [num_symbols] the target ids of symbols 0 ... num_symbols - 1.
      length: of the sequences; prefixes are shorter.
      batch_size: rows that are computed at a time.

    Returns:
      prefixes [num_prefixes, t] of symbol numbers -> [num_prefixes, num_symbols] float64.

    Raises:
      ValueError: the arguments do not fit each other; from the returned function, prefixes are too
        long, or their number differs from that of the sources.

    Example:
      >>> model = Seq2SeqModel(  # a user's own model: a table of logits, by the last token
      ...     init=lambda key: jnp.zeros((6, 6)),
      ...     encode=lambda params, source, mask, dropout_key: source,
      ...     initial_carry=lambda params, memory, max_length: memory,
      ...     decode_step=lambda params, memory, carry, token: (carry, params[token]),
      ...     decode_sequence=lambda params, memory, tokens: params[tokens],
      ...     vocab_size=6)
      >>> params = jnp.zeros((6, 6)).at[4, 5].set(jnp.log(3.0))
      >>> probs = make_next_token_probs(model, params, [[2]], [[True]], symbol_ids=[4, 5], length=2)
      >>> np.asarray(probs(np.array([[0], [1]]))).round(3).tolist()
      [[0.25, 0.75], [0.5, 0.5]]
    """
    source, source_mask = np.asarray(source, np.int32), np.asarray(source_mask, bool)
    ids = np.asarray(symbol_ids, np.int32)
    if source.ndim != 2 or source.shape != source_mask.shape or not len(source):
        raise ValueError(f"source has shape {source.shape} and its mask {source_mask.shape}")
    if ids.ndim != 1 or not len(ids) or ids.min() < 0 or ids.max() >= model.vocab_size:
        raise ValueError(f"symbol_ids must be ids below the vocabulary's size {model.vocab_size}")
    for name, value in (("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    num_sources = len(source)
    rows = np.arange(-(-num_sources // batch_size) * batch_size).reshape(-1, batch_size)
    encode = jax.jit(lambda params, source, mask: model.encode(params, source, mask, None))
    # The last batch is filled up with the last source; a single source fills a whole batch.
    memories = [
        encode(params, source[chosen], source_mask[chosen])
        for chosen in np.minimum(rows, num_sources - 1)
    ]

    @jax.jit
    def read(params: Params, memory: Memory, prefix: jax.Array, step: jax.Array) -> jax.Array:
        inputs = jnp.pad(jnp.asarray(ids)[prefix], ((0, 0), (1, 0)), constant_values=BOS)
        logits = model.decode_sequence(params, memory, inputs[:, :length])
        return jnp.take(logits[..., jnp.asarray(ids)], step, axis=1)

    def next_token_probs(prefixes: np.ndarray) -> np.ndarray:
        num_prefixes, step = prefixes.shape
        if step >= length:
            raise ValueError(f"prefixes have {step} symbols; they must be shorter than {length}")
        if num_sources > 1 and num_prefixes != num_sources:
            raise ValueError(f"{num_prefixes} prefixes for {num_sources} sources, one per row")
        num_batches = -(-num_prefixes // batch_size)
        padding = (0, num_batches * batch_size - num_prefixes), (0, length - step)
        padded = np.pad(np.asarray(prefixes, np.int32), padding)
        logits = [
            read(params, memories[index if num_sources > 1 else 0], batch, np.int32(step))
            for index, batch in enumerate(padded.reshape(num_batches, batch_size, length))
        ]
        found = np.concatenate(jax.device_get(logits))[:num_prefixes].astype(np.float64)
        weights = np.exp(found - found.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    return next_token_probs


def ask(
    next_token_probs: NextTokenProbs, prefixes: np.ndarray, num_symbols: int | None = None
) -> np.ndarray:
    """Calls a function of prefixes, checks the shape, and returns float64."""
    probs = np.asarray(next_token_probs(prefixes), np.float64)
    wanted = (len(prefixes), probs.shape[-1] if num_symbols is None and probs.ndim else num_symbols)
    if probs.shape != wanted:
        raise ValueError(
            f"next-token probabilities of {len(prefixes)} prefixes have shape {probs.shape}; they"
            f" must have a row for each and a column for each symbol"
        )
    return probs


def check_known(p: np.ndarray, q: np.ndarray, occurs: np.ndarray, place: str = "prefix") -> None:
    """Refuses tables without a valid distribution after a prefix that occurs."""
    for name, table in (("truth", p), ("model", q)):
        good = np.all(table >= 0, axis=-1) & (np.abs(table.sum(-1) - 1) < 1e-4)
        bad = np.argwhere(occurs & ~good)
        if len(bad):
            where = tuple(bad[0].tolist())
            raise ValueError(f"the {name} has no distribution of probabilities at {place} {where}")


def check_support(p: np.ndarray, q: np.ndarray, occurs: np.ndarray, place: str = "prefix") -> None:
    """Refuses an infinite divergence, and a truth that rules out tokens the model can produce."""
    check_known(p, q, occurs, place)
    for name, other, table, against in (("truth", "model", p, q), ("model", "truth", q, p)):
        bad = np.argwhere(occurs[..., None] & (table == 0) & (against > 0))
        if len(bad):
            *where, token = bad[0].tolist()
            raise ValueError(
                f"the {name} gives 0 to token {token} at {place} {tuple(where)}, where the"
                f" {other} has mass: accumulated error is undefined"
            )
