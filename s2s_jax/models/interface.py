"""The interface of a model: five pure functions, and optional ones that make training fast."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

Params = Any
"""A pytree of arrays, which the optimiser updates."""

Memory = Any
"""A pytree that the decoder reads but never changes: encoder states, masks, dropout masks."""

Carry = Any
"""A pytree that the decoder passes on to itself from one target step to the next."""


Trace = Any
"""A pytree that a forward pass stores for its gradient; every leaf is [time, batch, ...]."""


@dataclass(frozen=True)
class Features:
    """The decoder up to its output layer, so that all logits are never needed at once.

    features @ kernel + bias are the logits of decode_step and decode_sequence.

    Attributes:
      sequence: (params, memory, tokens [time, batch]) -> features [time, batch, num_features].
      output: params -> (kernel [num_features, vocab_size], bias [vocab_size]).
    """

    sequence: Callable[[Params, Memory, jax.Array], jax.Array]
    output: Callable[[Params], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Replay:
    """Functions that let the gradient reuse the forward pass in which the fed tokens were chosen.

    By the time the last token is chosen, a rollout has computed every state of the decoder. With
    these functions the loss takes the states from the rollout instead of computing them again.

    `sequence` returns what a scan of `step` returns: the features of `Features`, and a trace. The
    gradient of `replay` is that of `Features.sequence`.

    Attributes:
      step: (params, memory, carry, token [batch]) -> (carry, features [batch, num_features],
        trace of the step, without the leading axis).
      sequence: (params, memory, tokens [time, batch]) -> (features [time, batch, num_features],
        trace).
      replay: (params, memory, tokens [time, batch], features, trace) -> the same features. The
        gradient passes into params and memory, but not into the given features and trace.
    """

    step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array, Trace]]
    sequence: Callable[[Params, Memory, jax.Array], tuple[jax.Array, Trace]]
    replay: Callable[[Params, Memory, jax.Array, jax.Array, Trace], jax.Array]


@dataclass(frozen=True)
class Vectors:
    """Functions that let vectors be fed in place of tokens, such as expected embeddings.

    Feeding `table(params)[token]` to `step` is the same as feeding the token to decode_step.

    Attributes:
      table: params -> [vocab_size, size] the vectors of the target ids, one of them fed at a step.
      step: (params, memory, carry, vectors [batch, size]) -> (carry, logits [batch, vocab_size]).
      sequence: (params, memory, vectors [time, batch, size]) -> features [time, batch,
        num_features], as of `Features.sequence`; None if vectors can be fed only one by one.
    """

    table: Callable[[Params], jax.Array]
    step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array]]
    sequence: Callable[[Params, Memory, jax.Array], jax.Array] | None = None


@dataclass(frozen=True)
class Seq2SeqModel:
    """An encoder-decoder as pure functions; any model that has them can be trained here.

    There are two contracts. `decode_sequence` computes the same as a scan of `decode_step` from
    `initial_carry`, with everything that does not depend on the carry taken out of the scan. And
    every leaf of a memory and of a carry has the batch as its first axis, so that a search can
    repeat and reorder its rows.

    Attributes:
      init: key -> params.
      encode: (params, source [batch, source_time], source_mask [batch, source_time], dropout_key)
        -> memory. The source is PAD wherever the mask is False. An id that is not in the vocabulary
        should give NaN. If `dropout_key` is None, there is no dropout; otherwise every dropout mask
        of encoder *and* decoder is drawn here, once per sequence, and kept in the memory, so that
        each pass over the target sees the same masks.
      initial_carry: (params, memory, max_length) -> carry, for at most max_length steps; a model
        whose carry does not grow with the steps ignores it.
      decode_step: (params, memory, carry, token [batch]) -> (carry, logits [batch, vocab_size]).
      decode_sequence: (params, memory, tokens [batch, time]) -> logits [batch, time, vocab_size].
      vocab_size: number of target ids.
      attention_weights: (params, memory, tokens [batch, time]) -> [batch, time, source_time], for
        pictures; None if the model has no attention.
      features: saves the memory of all logits; a model with None here can be trained too.
      replay: makes scheduled sampling cheap for a model with features; likewise.
      vectors: lets expected embeddings be fed; None if the model can be fed tokens only.
      max_length: the most tokens that a source or a target may have; None for no limit.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array, jax.Array, jax.Array | None], Memory]
    initial_carry: Callable[[Params, Memory, int], Carry]
    decode_step: Callable[[Params, Memory, Carry, jax.Array], tuple[Carry, jax.Array]]
    decode_sequence: Callable[[Params, Memory, jax.Array], jax.Array]
    vocab_size: int
    attention_weights: Callable[[Params, Memory, jax.Array], jax.Array] | None = None
    features: Features | None = None
    replay: Replay | None = None
    vectors: Vectors | None = None
    max_length: int | None = None

    def __post_init__(self):
        if self.replay is not None and self.features is None:
            raise ValueError("a model with a replay needs features, for its output layer")
