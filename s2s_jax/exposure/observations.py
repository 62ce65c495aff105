"""From a model and a split to arrays: the data for all measures of exposure bias."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from s2s_jax.batch import Batch, gold_inputs, to_jax
from s2s_jax.decoding import greedy, sample
from s2s_jax.exposure.edit_oracle import oracle_cost
from s2s_jax.exposure.recovery import KINDS, choose_position, corrupt
from s2s_jax.losses import log_probs_of
from s2s_jax.metrics import right_tokens
from s2s_jax.models.interface import Carry, Memory, Params, Seq2SeqModel
from s2s_jax.prng import stream_key

StateOf = Callable[[Carry], jax.Array]
"""carry, leaves [batch, ...] -> [batch, size]: the part of a decoder's carry that is compared."""

NUM_STATES = 512
"""The default number of sequences whose decoder states are read."""

ReadStates = Callable[[Params, ArrayLike, ArrayLike, ArrayLike], jax.Array]
"""(params, source, source_mask, inputs [batch, time]) -> states [batch, time, size]."""


class ObservedBatch(NamedTuple):
    """The observations of one batch; see `Observations` for the fields."""

    gold_nll: jax.Array
    gold_right: jax.Array
    own_tokens: jax.Array
    own_lengths: jax.Array
    own_finished: jax.Array
    sampled_tokens: jax.Array
    sampled_lengths: jax.Array
    oracle_cost: jax.Array
    corrupted_at: jax.Array
    corrupted_nll: dict[str, jax.Array]


ObserveStep = Callable[[Params, Batch, jax.Array], ObservedBatch]


@dataclass(frozen=True)
class Observations:
    """The observations of a model on a split: one row per sequence, in the order of the examples.

    Attributes:
      target: [n, time] int32 ids.
      mask: [n, time] bool, gold tokens, up to and including EOS.
      gold_nll: [n, time] float32 nats, -log p(y_t | y_<t).
      gold_right: [n, time] bool, argmax p(. | y_<t) = y_t; False if y_t is unknown.
      own_tokens: [n, max_length] int32 ids of the greedy hypothesis, PAD after EOS.
      own_lengths: [n] number of its tokens, including EOS.
      own_finished: [n] bool, whether it has an EOS.
      sampled_tokens: [n, max_length] int32 ids sampled from the model at temperature 1; [n, 0] if
        none were sampled.
      sampled_lengths: [n] number of sampled tokens, including EOS.
      oracle_cost: [n, max_length], or [n, 0], float32 nats, after the sampled prefixes; see
        `edit_oracle.oracle_cost`.
      corrupted_at: [n] which gold token was corrupted, counted from 1; 0 for none.
      corrupted_nll: for each of `recovery.KINDS` [n, time] float32 nats, -log p(y_t | y_<t) with
        that token corrupted in the inputs; empty if none was corrupted.
      state_rows: [m] the rows whose decoder states were read, spread evenly.
      gold_states: [m, steps, size] float32, after the inputs BOS, y_1 ... y_{t-1}.
      own_states: [m, steps, size] float32, after BOS and the sampled tokens.
    """

    target: np.ndarray
    mask: np.ndarray
    gold_nll: np.ndarray
    gold_right: np.ndarray
    own_tokens: np.ndarray
    own_lengths: np.ndarray
    own_finished: np.ndarray
    sampled_tokens: np.ndarray
    sampled_lengths: np.ndarray
    oracle_cost: np.ndarray
    corrupted_at: np.ndarray
    corrupted_nll: dict[str, np.ndarray]
    state_rows: np.ndarray
    gold_states: np.ndarray
    own_states: np.ndarray

    @property
    def own_right(self) -> np.ndarray:
        """[n, time] bool, whether the greedy token is the gold one; see `right_tokens`."""
        return right_tokens(fit(self.own_tokens, self.target.shape[1]), self.target)

    @property
    def own_exact(self) -> np.ndarray:
        """[n] bool, whether the greedy hypothesis equals the target and ends where it ends."""
        right = np.all(self.own_right | ~self.mask, axis=1)
        return right & (self.own_lengths == self.mask.sum(1))

    @property
    def sampled_mask(self) -> np.ndarray:
        """[n, max_length] bool, sampled tokens up to and including EOS."""
        return np.arange(self.sampled_tokens.shape[1]) < self.sampled_lengths[:, None]

    @property
    def state_mask(self) -> np.ndarray:
        """[m, steps] bool, where the gold and the sampled sequence both have a token."""
        steps = self.gold_states.shape[1]
        gold, drawn = self.mask[self.state_rows], self.sampled_mask[self.state_rows]
        return fit(gold, steps) & fit(drawn, steps)


def make_observe_step(
    model: Seq2SeqModel, max_length: int, *, draws: bool = True, corrupts: bool = True
) -> ObserveStep:
    """Makes the function that observes one batch, without dropout.

    It makes five passes: with gold inputs, greedy, with sampled tokens and the distributions after
    them, and two with a corrupted token.

    Args:
      model: the functions of `Seq2SeqModel`.
      max_length: maximum number of tokens in a hypothesis, including EOS.
      draws: whether to make the pass with sampled tokens; the other passes do not depend on this.
      corrupts: whether to make the passes with a corrupted token, likewise.

    Returns:
      observe_step(params, batch, key) -> ObservedBatch; pure, not jitted.

    Raises:
      ValueError: max_length is below 1; from the returned function, the vocabulary has fewer than
        two ordinary tokens.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1")

    def observe_step(params: Params, batch: Batch, key: jax.Array) -> ObservedBatch:
        source, source_mask, target, mask = to_jax(batch)
        drawing, placing, *corrupting = jax.random.split(stream_key(key, "samples"), 2 + len(KINDS))
        memory = model.encode(params, source, source_mask, None)

        def nll(logits: jax.Array) -> jax.Array:
            log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
            return -log_probs_of(log_probs, target[..., None])[..., 0]

        inputs = gold_inputs(target)
        logits = model.decode_sequence(params, memory, inputs)
        own = greedy(model, params, memory, max_length)
        sampled_lengths = corrupted_at = jnp.zeros(len(target), jnp.int32)
        sampled_tokens, cost = own.tokens[:, :0], jnp.zeros((len(target), 0), jnp.float32)
        if draws:
            drawn = sample(model, params, memory, max_length, drawing)
            sampled_tokens, sampled_lengths = drawn.tokens, drawn.lengths
            after_drawn = model.decode_sequence(params, memory, gold_inputs(drawn.tokens))
            cost = oracle_cost(
                jax.nn.log_softmax(after_drawn.astype(jnp.float32)), target, mask, drawn.tokens
            )
        corrupted = {}
        if corrupts:
            corrupted_at = choose_position(mask, placing)
            corrupted = {
                kind: corrupt(kind, inputs, corrupted_at, logits, kind_key)
                for kind, kind_key in zip(KINDS, corrupting, strict=True)
            }
        return ObservedBatch(
            gold_nll=nll(logits),
            gold_right=right_tokens(logits.argmax(-1), target),
            own_tokens=own.tokens,
            own_lengths=own.lengths,
            own_finished=own.finished,
            sampled_tokens=sampled_tokens,
            sampled_lengths=sampled_lengths,
            oracle_cost=cost,
            corrupted_at=corrupted_at,
            corrupted_nll={
                kind: nll(model.decode_sequence(params, memory, fed))
                for kind, fed in corrupted.items()
            },
        )

    return observe_step


def flat_state(carry: Carry) -> jax.Array:
    """A whole carry as one vector per row: its leaves, flattened and concatenated, in float32.

    Args:
      carry: a pytree with leaves [batch, ...].

    Returns:
      [batch, size] float32.
    """
    leaves = jax.tree.leaves(carry)
    return jnp.concatenate([leaf.reshape(len(leaf), -1).astype(jnp.float32) for leaf in leaves], 1)


def make_read_states(model: Seq2SeqModel, state_of: StateOf | None = None) -> ReadStates:
    """Makes the function that reads a decoder's state after every prefix of given inputs.

    Args:
      model: the functions of `Seq2SeqModel`.
      state_of: selects the part of the carry that is compared; None for the whole carry or, if that
        is a cache which grows with the number of steps, for the model's `features` at that step.

    Returns:
      read_states(params, source, source_mask, inputs) -> states [batch, time, size] float32, each
      after the input of that time was read; pure, not jitted.
    """

    def read_states(
        params: Params, source: ArrayLike, source_mask: ArrayLike, inputs: ArrayLike
    ) -> jax.Array:
        memory = model.encode(params, jnp.asarray(source), jnp.asarray(source_mask), None)
        tokens = jnp.asarray(inputs).T
        if state_of is None and model.features is not None and _grows(model, params, memory):
            states = model.features.sequence(params, memory, tokens)
            return states.swapaxes(0, 1).astype(jnp.float32)

        def step(carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
            carry, _ = model.decode_step(params, memory, carry, token)
            return carry, (state_of or flat_state)(carry)

        _, states = jax.lax.scan(step, model.initial_carry(params, memory, len(tokens)), tokens)
        return states.swapaxes(0, 1)

    return read_states


def _grows(model: Seq2SeqModel, params: Params, memory: Memory) -> bool:
    """Whether a carry for more steps is larger."""

    def shapes(max_length: int) -> Any:
        return jax.eval_shape(lambda: model.initial_carry(params, memory, max_length))

    return jax.tree.leaves(shapes(1)) != jax.tree.leaves(shapes(2))


def observe(
    observe_step: ObserveStep,
    params: Params,
    batches: Iterable[tuple[np.ndarray, Batch]],
    key: jax.Array,
    read_states: ReadStates | None = None,
    num_states: int = NUM_STATES,
) -> Observations:
    """Observes a model on a split.

    Args:
      observe_step: from `make_observe_step`, jitted.
      params: the model's parameters.
      batches: (indices, batch) pairs that hold every example once; index -1 for filler rows.
        Batches may differ in shape.
      key: one PRNG key; batch number b draws with fold_in(key, b).
      read_states: from `make_read_states`, jitted; None reads no states.
      num_states: the maximum number of sequences whose states are read; each takes twice
        steps * size float32.

    Returns:
      Observations; arrays of shorter batches are padded to the longest.

    Raises:
      ValueError: there are no batches, or only filler rows; or an index occurs twice.
    """
    batches = [(some, Batch(*jax.device_get(to_jax(batch)))) for some, batch in batches]
    # Dispatch all batches before waiting for the first result.
    results = [
        observe_step(params, batch, jax.random.fold_in(key, number))
        for number, (_, batch) in enumerate(batches)
    ]
    indices = np.concatenate([np.zeros(0, int), *(np.asarray(some) for some, _ in batches)])
    rows = np.flatnonzero(indices >= 0)
    if not len(rows):
        raise ValueError("nothing to observe: the split is empty")
    rows = rows[np.argsort(indices[rows], kind="stable")]
    if np.any(np.diff(indices[rows]) == 0):
        raise ValueError("an example's index occurs twice in the batches")

    def gather(*arrays: np.ndarray) -> np.ndarray:
        longest = max(array.shape[1] if array.ndim > 1 else 0 for array in arrays)
        padded = [fit(array, longest) if array.ndim > 1 else array for array in arrays]
        return np.concatenate(padded)[rows]

    seen = jax.tree.map(gather, *jax.device_get(results))._asdict()
    source, source_mask, target, mask = map(gather, *(batch for _, batch in batches))
    chosen = np.zeros(0, int)
    gold_states = own_states = np.zeros((0, 0, 0), np.float32)
    if read_states is not None and num_states > 0:
        chosen = np.arange(min(num_states, len(rows))) * len(rows) // min(num_states, len(rows))
        steps = min(target.shape[1], seen["sampled_tokens"].shape[1])
        gold_states, own_states = (
            _read(
                read_states,
                params,
                source[chosen],
                source_mask[chosen],
                np.asarray(gold_inputs(fit(tokens[chosen], steps))),
                len(batches[0][0]),
            )
            for tokens in (target, seen["sampled_tokens"])
        )
    return Observations(
        target=target,
        mask=mask,
        state_rows=chosen,
        gold_states=gold_states,
        own_states=own_states,
        **seen,
    )


def fit(array: np.ndarray, time: int) -> np.ndarray:
    """Cuts or pads [n, ...] with zeros to [n, time]."""
    return np.pad(array, ((0, 0), (0, max(0, time - array.shape[1]))))[:, :time]


def _read(
    read_states: ReadStates,
    params: Params,
    source: np.ndarray,
    source_mask: np.ndarray,
    inputs: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """The states of any number of rows, in batches of one shape."""
    num_rows = len(inputs)
    results = []
    for start in range(0, num_rows, batch_size):
        # The last batch is filled up with its last row.
        some = np.minimum(np.arange(start, start + batch_size), num_rows - 1)
        results.append(read_states(params, source[some], source_mask[some], inputs[some]))
    return np.concatenate(jax.device_get(results))[:num_rows]
