"""Self-recovery: one gold input is corrupted, and the loss after it is measured."""

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import NUM_RESERVED
from s2s_jax.exposure.intervals import Bootstrap, divide
from s2s_jax.exposure.measure import MIN_COUNT, Measure, curve, single
from s2s_jax.exposure.positions import shift
from s2s_jax.sampling import draw_noise, make_token_chooser

KINDS = ("uniform", "plausible")
"""What replaces the gold token: any ordinary token, or one sampled from the model."""


def choose_position(mask: jax.Array, key: jax.Array) -> jax.Array:
    """Draws which gold token of each sequence is corrupted.

        s ~ uniform over 1 ... n - 1,   n tokens with EOS, so that at least one comes later

    Args:
      mask: [batch, time] bool, up to and including EOS.
      key: one PRNG key.

    Returns:
      [batch] int32, counted from 1; 0 where there is no such position.
    """
    num_places = jnp.maximum(mask.sum(1) - 1, 0)
    drawn = jax.random.uniform(key, (len(mask),)) * num_places
    return jnp.minimum(jnp.floor(drawn).astype(jnp.int32) + 1, num_places)


def corrupt(
    kind: str, inputs: jax.Array, position: jax.Array, logits: jax.Array, key: jax.Array
) -> jax.Array:
    """Replaces y_s in the decoder's inputs by another ordinary token.

        uniform:    c ~ uniform,   plausible:  c ~ p(. | y_<s);   c not y_s, PAD, BOS, EOS or UNK

    He et al. (2021), "Exposure Bias versus Self-Recovery", arXiv:1905.10617, corrupt whole
    prefixes; here it is one token.

    Args:
      kind: one of `KINDS`.
      inputs: [batch, time] int32 ids, BOS and the gold tokens.
      position: [batch] int32 s, counted from 1, so that y_s is inputs[:, s]; 0 changes nothing.
      logits: [batch, time, vocab_size] for the gold inputs.
      key: one PRNG key.

    Returns:
      [batch, time] int32 ids.

    Raises:
      ValueError: an unknown kind, or a vocabulary without two ordinary tokens.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    vocab_size = logits.shape[-1]
    if vocab_size < NUM_RESERVED + 2:
        raise ValueError(f"a vocabulary of {vocab_size} ids has no other token to corrupt with")
    rows = jnp.arange(len(inputs))
    gold = inputs[rows, position]
    before = logits[rows, jnp.maximum(position - 1, 0)]
    ids = jnp.arange(vocab_size)
    allowed = (ids >= NUM_RESERVED) & (ids != gold[:, None])
    weights = before.astype(jnp.float32) if kind == "plausible" else jnp.zeros_like(before)
    noise = draw_noise(key, allowed.shape[:-1])
    token = make_token_chooser("sample")(jnp.where(allowed, weights, -jnp.inf), noise)
    return inputs.at[rows, position].set(jnp.where(position > 0, token, gold))


def half_life(increase: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The distance from a corrupted token at which its effect has fallen to half.

        the first d, linearly interpolated, at which Delta(d) <= Delta(1) / 2

    Args:
      increase: [..., k] Delta(d), in nats.
      at: [k] the distances d, ascending.

    Returns:
      [...] distances, in tokens; inf where Delta is above half at every given distance, NaN where
      Delta(1) is not above 0 or not given.

    Example:
      >>> float(half_life(np.array([4.0, 3.0, 1.0, 1.5]), np.arange(1, 5)))
      2.5
    """
    increase = np.asarray(increase, np.float64)
    if not len(at) or at[0] != 1:
        return np.full(increase.shape[:-1], np.nan)
    half = increase[..., :1] / 2
    below = increase <= half
    after = np.maximum(below.argmax(-1), 1)[..., None] if len(at) > 1 else np.zeros(1, int)
    after = np.broadcast_to(after, half.shape)
    before = np.maximum(after - 1, 0)
    above, under = (np.take_along_axis(increase, index, axis=-1) for index in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = at[before] + (above - half) / (above - under) * (at[after] - at[before])
    found = np.where(below.any(-1, keepdims=True), found, np.inf)[..., 0]
    return np.where(increase[..., 0] > 0, found, np.nan)


def self_recovery(
    gold_nll: np.ndarray,
    corrupted_nll: np.ndarray,
    mask: np.ndarray,
    position: np.ndarray,
    bootstrap: Bootstrap,
    min_count: int = MIN_COUNT,
) -> dict[str, Measure]:
    """How much less likely the gold tokens after a corrupted one become, and for how long.

        Delta(d) = mean NLL(y_{s+d} | y_s corrupted) - NLL(y_{s+d} | gold),   d = 1, 2 ...

    Args:
      gold_nll: [num_sequences, time] nats, with gold inputs.
      corrupted_nll: [num_sequences, time] nats, with y_s corrupted in the inputs.
      mask: [num_sequences, time] bool, gold tokens, up to and including EOS.
      position: [num_sequences] s, counted from 1; 0 where nothing was corrupted.
      bootstrap: over the sequences.
      min_count: the minimum number of sequences for a distance.

    Returns:
      "nll_increase_by_distance", and "half_life" over the distances of that curve only.
    """
    increase = np.where(mask, corrupted_nll.astype(np.float64) - gold_nll, 0)
    start = np.where(position > 0, position, mask.shape[1])
    arrays = shift(increase, start), shift(mask, start)
    counts = arrays[1].sum(0)
    by_distance = curve(
        bootstrap,
        divide,
        *arrays,
        n=counts,
        axis="distance",
        unit="nats",
        min_count=min_count,
    )
    at = by_distance.at if by_distance.at is not None else np.zeros(0, int)
    interval = bootstrap.of(
        lambda total, weight: half_life(divide(total, weight), at),
        *(array[:, at - 1] for array in arrays),
    )
    return {
        "nll_increase_by_distance": by_distance,
        "half_life": single(interval, counts[0] if len(at) else 0, "tokens"),
    }
