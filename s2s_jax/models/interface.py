"""What the rest of the package needs of a model: five pure functions, and what makes it fast."""

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


Trace = Any
"""A pytree of what a forward pass leaves for its gradient; every leaf [time, batch, ...]."""


@dataclass(frozen=True)
class Replay:
    """What lets the gradient reuse the forward pass in which the fed tokens were chosen.

    A rollout has computed every state of the decoder by the time that the last token is chosen.
    With these functions the loss takes the states from it, instead of computing them again, and
    asks for the output layer by itself, so that logits need never be there for all tokens at once.

    `sequence` returns what a scan of `step` returns; features @ kernel + bias are the logits of
    decode_step and decode_sequence; and the gradient of `replay` is that of decode_sequence.

    Attributes:
      step: (params, memory, carry, token [batch]) -> (carry, features [batch, num_features],
        trace of the step, without the leading axis).
      sequence: (params, memory, tokens [time, batch]) -> (features [time, batch, num_features],
        trace).
      replay: (params, memory, tokens [time, batch], features, trace) -> the same features. No
        gradient passes into those given, nor into the trace; it passes into params and memory.
      output: params -> (kernel [num_features, vocab_size], bias [vocab_size]).
    """

    step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array, Trace]]
    sequence: Callable[[Params, Memory, jax.Array], tuple[jax.Array, Trace]]
    replay: Callable[[Params, Memory, jax.Array, jax.Array, Trace], jax.Array]
    output: Callable[[Params], tuple[jax.Array, jax.Array]]


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
        -> memory. Where the mask is False the source is PAD. An id that is not in the vocabulary
        should give NaN. `dropout_key` is None where nothing is dropped; otherwise every dropout
        mask of encoder *and* decoder is drawn here, once a sequence, and kept in the memory, so
        that each pass over the target sees the same masks.
      initial_carry: (params, memory) -> carry.
      decode_step: (params, memory, carry, token [batch]) -> (carry, logits [batch, vocab_size]).
      decode_sequence: (params, memory, tokens [batch, time]) -> logits [batch, time, vocab_size].
      vocab_size: number of target ids.
      attention_weights: (params, memory, tokens [batch, time]) -> [batch, time, source_time], for
        pictures; None where the model has no attention.
      replay: what makes scheduled sampling cheap; None for a model without, which trains all the
        same.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array, jax.Array, jax.Array | None], Memory]
    initial_carry: Callable[[Params, Memory], Carry]
    decode_step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array]]
    decode_sequence: Callable[[Params, Memory, jax.Array], jax.Array]
    vocab_size: int
    attention_weights: Callable[[Params, Memory, jax.Array], jax.Array] | None = None
    replay: Replay | None = None
