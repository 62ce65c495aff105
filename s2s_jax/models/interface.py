"""What the rest of the package needs of a model: five pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

Params = Any
"""A pytree of arrays: what the optimiser moves."""

Memory = Any
"""A pytree of what the decoder reads and never changes: encoder states, masks, dropout masks."""

Carry = Any
"""A pytree of what the decoder passes itself from one target step to the next."""


@dataclass(frozen=True)
class Seq2SeqModel:
    """An encoder-decoder as pure functions; anybody's model with these trains here.

    Two contracts hold them together. `decode_sequence` computes what a scan of `decode_step` from
    `initial_carry` computes, with all that does not depend on the carry taken out of the scan.
    Every leaf of a memory and of a carry has the batch as its first axis, so that a search can
    repeat and reorder its rows.

    Attributes:
      init: key -> params.
      encode: (params, source [batch, source_time], source_mask [batch, source_time], dropout_key)
        -> memory. `dropout_key` is None where nothing is dropped; otherwise every dropout mask of
        encoder *and* decoder is drawn here, once a sequence, and kept in the memory, so that each
        pass over the target sees the same masks.
      initial_carry: (params, memory) -> carry.
      decode_step: (params, memory, carry, token [batch]) -> (carry, logits [batch, vocab_size]).
      decode_sequence: (params, memory, tokens [batch, time]) -> logits [batch, time, vocab_size].
      vocab_size: number of target ids.
      attention_weights: (params, memory, tokens [batch, time]) -> [batch, time, source_time], for
        pictures; None where the model has no attention.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array, jax.Array, jax.Array | None], Memory]
    initial_carry: Callable[[Params, Memory], Carry]
    decode_step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array]]
    decode_sequence: Callable[[Params, Memory, jax.Array], jax.Array]
    vocab_size: int
    attention_weights: Callable[[Params, Memory, jax.Array], jax.Array] | None = None
