"""How long a decoder that is fed its own tokens goes on, in a batch of gold targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import EOS


class Hypotheses(NamedTuple):
    """Where the hypotheses of a batch are; each ends with its own end symbol, or at its cap.

    Attributes:
      cap: [batch] int32, the largest number of tokens: those of the gold target and a margin.
      num_steps: [batch] int32, steps so far.
      has_ended: [batch] bool, whether the end symbol was fed.
    """

    cap: jax.Array
    num_steps: jax.Array
    has_ended: jax.Array

    def after(self, token: jax.Array) -> "Hypotheses":
        """One step later, with the token [batch] that is fed at this step."""
        return Hypotheses(self.cap, self.num_steps + 1, self.has_ended | (token == EOS))

    @property
    def counts(self) -> jax.Array:
        """[batch] float32: 1 if this step, the last one given to `after`, is in the hypothesis."""
        return (~self.has_ended & (self.num_steps <= self.cap)).astype(jnp.float32)


def begin_hypotheses(mask: jax.Array, margin: int) -> Hypotheses:
    """Before the first step; a filler row has no hypothesis.

    Args:
      mask: [batch, time] bool of the gold targets.
      margin: how many tokens a hypothesis may have more than its gold target.

    Example:
      >>> some = begin_hypotheses(jnp.array([[True, True], [False, False]]), margin=1)
      >>> counts = []
      >>> for token in (1, 7, 8, 9):  # the start symbol first
      ...     some = some.after(jnp.array([token, token]))
      ...     counts.append(some.counts.tolist())
      >>> counts
      [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    """
    num_tokens = mask.sum(1)
    cap = jnp.where(num_tokens > 0, num_tokens + margin, 0)
    return Hypotheses(cap, jnp.zeros_like(cap), jnp.zeros(cap.shape, bool))
