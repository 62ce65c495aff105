"""From a model and a split to arrays: all that the measures of exposure bias are made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

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
from s2s_jax.models.interface import Carry, Params, Seq2SeqModel
from s2s_jax.prng import stream_key

StateOf = Callable[[Carry], jax.Array]
"""carry, leaves [batch, ...] -> [batch, size]: what of a decoder's carry is compared."""

NUM_STATES = 512
"""For how many sequences decoder states are read, unless told otherwise."""

ReadStates = Callable[[Params, ArrayLike, ArrayLike, ArrayLike], jax.Array]
"""(params, source, source_mask, inputs [batch, time]) -> states [batch, time, size]."""


class ObservedBatch(NamedTuple):
    """What `make_observe_step` sees of a batch; see `Observations` for the fields."""

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
    """A model on a split, a row a sequence, in the examples' order.

    Attributes:
      target: [n, time] int32 ids.
      mask: [n, time] bool, gold tokens, up to and including EOS.
      gold_nll: [n, time] float32 nats, -log p(y_t | y_<t).
      gold_right: [n, time] bool, argmax p(. | y_<t) = y_t; never where y_t is unknown.
      own_tokens: [n, max_length] int32 ids of the greedy hypothesis, PAD after EOS.
      own_lengths: [n] its tokens, EOS counted.
      own_finished: [n] bool, whether it has an EOS.
      sampled_tokens: [n, max_length] int32 ids drawn from the model at temperature 1; [n, 0] where
        none were drawn.
      sampled_lengths: [n] how many they are, EOS counted.
      oracle_cost: [n, max_length], or [n, 0], float32 nats, see `edit_oracle.oracle_cost`, behind
        the drawn prefixes.
      corrupted_at: [n] which gold token was corrupted, counted from 1; 0 for none.
      corrupted_nll: for each of `recovery.KINDS` [n, time] float32 nats, -log p(y_t | y_<t) behind
        inputs with that token corrupted; empty where none was.
      state_rows: [m] the rows whose decoder states were read, spread evenly.
      gold_states: [m, steps, size] float32, behind inputs BOS, y_1 ... y_{t-1}.
      own_states: [m, steps, size] float32, behind BOS and the drawn tokens.
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
        """[n] bool, whether the greedy hypothesis is the target, and ends with it."""
        right = np.all(self.own_right | ~self.mask, axis=1)
        return right & (self.own_lengths == self.mask.sum(1))

    @property
    def sampled_mask(self) -> np.ndarray:
        """[n, max_length] bool, drawn tokens up to and including EOS."""
        return np.arange(self.sampled_tokens.shape[1]) < self.sampled_lengths[:, None]

    @property
    def state_mask(self) -> np.ndarray:
        """[m, steps] bool, where the gold and the drawn sequence both have a token to say."""
        steps = self.gold_states.shape[1]
        gold, drawn = self.mask[self.state_rows], self.sampled_mask[self.state_rows]
        return fit(gold, steps) & fit(drawn, steps)


def make_observe_step(
    model: Seq2SeqModel, max_length: int, *, draws: bool = True, corrupts: bool = True
) -> ObserveStep:
    """Makes what looks at one batch; nothing is dropped out.

    Five passes: gold inputs, greedy, drawn tokens and the distributions behind them, and two with
    a corrupted token.

    Args:
      model: the functions of `Seq2SeqModel`.
      max_length: most tokens of a hypothesis, EOS included.
      draws: whether to make the pass with drawn tokens; what else is seen does not change.
      corrupts: whether to make those with a corrupted token, likewise.

    Returns:
      observe_step(params, batch, key) -> ObservedBatch; pure, not jitted.

    Raises:
      ValueError: a max_length below 1, or from the function a vocabulary without two ordinary
        tokens.
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
            behind_drawn = model.decode_sequence(params, memory, gold_inputs(drawn.tokens))
            cost = oracle_cost(
                jax.nn.log_softmax(behind_drawn.astype(jnp.float32)), target, mask, drawn.tokens
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
    """All of a carry as one vector a row: its leaves, flattened and concatenated, in float32.

    Args:
      carry: a pytree with leaves [batch, ...].

    Returns:
      [batch, size] float32.
    """
    leaves = jax.tree.leaves(carry)
    return jnp.concatenate([leaf.reshape(len(leaf), -1).astype(jnp.float32) for leaf in leaves], 1)


def make_read_states(model: Seq2SeqModel, state_of: StateOf = flat_state) -> ReadStates:
    """Makes what reads a decoder's state behind every prefix of given inputs.

    Args:
      model: the functions of `Seq2SeqModel`.
      state_of: what of the carry is compared. A model with a huge carry, a cache of all tokens say,
        passes its own.

    Returns:
      read_states(params, source, source_mask, inputs) -> states [batch, time, size] float32, after
      the input of each time was read; pure, not jitted.
    """

    def read_states(
        params: Params, source: ArrayLike, source_mask: ArrayLike, inputs: ArrayLike
    ) -> jax.Array:
        memory = model.encode(params, jnp.asarray(source), jnp.asarray(source_mask), None)

        def step(carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
            carry, _ = model.decode_step(params, memory, carry, token)
            return carry, state_of(carry)

        _, states = jax.lax.scan(step, model.initial_carry(params, memory), jnp.asarray(inputs).T)
        return states.swapaxes(0, 1)

    return read_states


def observe(
    observe_step: ObserveStep,
    params: Params,
    batches: Iterable[tuple[np.ndarray, Batch]],
    key: jax.Array,
    read_states: ReadStates | None = None,
    num_states: int = NUM_STATES,
) -> Observations:
    """Looks at a split.

    Args:
      observe_step: of `make_observe_step`, jitted.
      params: the model's parameters.
      batches: (indices, batch) pairs that hold every example once; index -1 for filling rows.
        Batches may differ in shape.
      key: one PRNG key; batch number b draws with fold_in(key, b).
      read_states: of `make_read_states`, jitted; None reads none.
      num_states: for how many sequences states are read, at most; they are steps * size float32
        each, twice.

    Returns:
      Observations; arrays of shorter batches are padded to the longest.

    Raises:
      ValueError: there are no batches, or only filling rows; or an index that comes twice.
    """
    batches = [(some, Batch(*jax.device_get(to_jax(batch)))) for some, batch in batches]
    # All batches are dispatched before the first result is waited for.
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
        raise ValueError("an example's index comes twice among the batches")

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
