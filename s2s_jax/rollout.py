"""The only place where fed tokens are chosen: gold tokens, or the model's own.

The carry that the decoder passes from step to step is never modified here; a training method
decides only which token is fed along with it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import BOS
from s2s_jax.branches import unless_all_gold
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel
from s2s_jax.names import did_you_mean
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import draw_noise, make_token_chooser

COINS = ("token", "sequence", "batch")
"""The coins: what shares a toss, a token, a sequence or a batch; `Feeding` rejects others."""


class Fed(NamedTuple):
    """What the decoder was fed; inside a train step it is time first, like the target.

    Attributes:
      tokens: [batch, time] int32 ids; BOS first.
      is_gold: [batch, time] bool, True where the coin said gold, and at the first step, where no
        coin is tossed. The model's own token can equal the gold one, so this is not
        `tokens == gold`.
    """

    tokens: jax.Array
    is_gold: jax.Array

    def turned(self) -> "Fed":
        """Swaps the two axes: [batch, time] becomes [time, batch], and vice versa."""
        return Fed(self.tokens.T, self.is_gold.T)


class Draws(NamedTuple):
    """All that determines the token fed after a step, except for the model; time first.

    Attributes:
      gold: [time, batch] int32, the step's target.
      own: [time, batch] bool, True where the coin says own; False at the last step.
      noise: [time, batch, 2], from `draw_noise`.
    """

    gold: jax.Array
    own: jax.Array
    noise: jax.Array


Rollout = Callable[[Params, Memory, jax.Array, jax.Array, jax.Array], Fed]
"""(params, memory, target [batch, time], key, teacher_prob) -> Fed."""


def toss_coins(
    key: jax.Array, teacher_prob: jax.Array, num_steps: int, batch_size: int, coin: str = "token"
) -> jax.Array:
    """Draws which inputs are gold; each one is with probability teacher_prob.

        is_gold ~ Bernoulli(teacher_prob)   per token, per sequence or per batch

    Args:
      key: one PRNG key; target step t draws from fold_in(key, t), so a longer batch tosses the
        same coins and then additional ones.
      teacher_prob: scalar in [0, 1]; at 1 every coin says gold, at 0 none does.
      num_steps: number of target steps with a toss.
      batch_size: number of sequences.
      coin: what shares a toss: nothing ("token", as in the paper), the tokens of a sequence
        ("sequence"; "much worse" in Bengio et al. 2015, arXiv:1506.03099, section 2.4, footnote)
        or the whole batch ("batch").

    Returns:
      [num_steps, batch_size] bool.

    Raises:
      ValueError: an unknown coin.

    Example:
      >>> coins = toss_coins(jax.random.key(0), jnp.float32(0.5), 3, 1000, coin="sequence")
      >>> bool(jnp.all(coins == coins[0])), abs(float(coins.mean()) - 0.5) < 0.05
      (True, True)
    """
    _check_coin(coin)
    if coin == "token":
        keys = per_step_keys(key, num_steps)
        draws = jax.vmap(lambda k: jax.random.uniform(k, (batch_size,)))(keys)
    elif coin == "sequence":
        draws = jax.random.uniform(key, (1, batch_size))
    else:
        draws = jax.random.uniform(key, (1, 1))
    return jnp.broadcast_to(draws < teacher_prob, (num_steps, batch_size))


class Feeding:
    """Chooses fed tokens: draws all randomness before the scan, and one token in each scan step.

    x_1 = BOS,   x_t = y_{t-1} if coin_t else a token of p(. | x_<t)
    """

    def __init__(
        self,
        vocab_size: int,
        coin: str = "token",
        feed: str = "sample",
        temperature: float = 1.0,
        top_k: int = 0,
    ):
        """See `make_rollout` for the arguments and the errors."""
        _check_coin(coin)
        if top_k > vocab_size:
            raise ValueError(f"top_k is {top_k}, and the vocabulary has {vocab_size} tokens")
        self.coin = coin
        self.choose_token = make_token_chooser(feed, temperature, top_k)

    def draw(self, target: jax.Array, key: jax.Array, teacher_prob: jax.Array) -> Draws:
        """Tosses the coins of target [time, batch], and draws the noise of the samples."""
        length, batch_size = target.shape
        coins_key, samples_key = stream_key(key, "coins"), stream_key(key, "samples")
        is_gold = toss_coins(coins_key, teacher_prob, length - 1, batch_size, self.coin)
        own = jnp.pad(~is_gold, ((0, 1), (0, 0)))  # nothing is fed after the last step
        noise = jax.vmap(lambda key: draw_noise(key, (batch_size,)))(
            per_step_keys(samples_key, length)
        )
        return Draws(target, own, noise)

    def first(self, batch_size: int) -> jax.Array:
        """The tokens [batch] that are fed at the first step."""
        return jnp.full((batch_size,), BOS, jnp.int32)

    def next(self, logits: jax.Array, draws: Draws) -> jax.Array:
        """The tokens [batch] after a step, from its logits [batch, vocab_size] and its draws."""
        return jnp.where(draws.own, self.choose_token(logits, draws.noise), draws.gold)

    def fed(self, next_tokens: jax.Array, draws: Draws) -> Fed:
        """What was fed, time first, given the tokens [time, batch] that `next` chose."""
        return Fed(_one_step_late(next_tokens, BOS), _one_step_late(~draws.own, True))

    def all_gold(self, target: jax.Array) -> Fed:
        """What is fed, time first, while teacher_prob is 1; target [time, batch]."""
        return Fed(_one_step_late(target, BOS), jnp.ones(target.shape, bool))


def _one_step_late(array: jax.Array, first: int | bool) -> jax.Array:
    """Shifts an array [time, batch] by one step: `first`, then all but the last step."""
    return jnp.pad(array[:-1], ((1, 0), (0, 0)), constant_values=first)


def make_rollout(
    model: Seq2SeqModel,
    *,
    coin: str = "token",
    feed: str = "sample",
    temperature: float = 1.0,
    top_k: int = 0,
) -> Rollout:
    """Makes the scan over target time that feeds gold or the model's own tokens.

        x_1 = BOS,   x_t = y_{t-1} if coin_t else a token of p(. | x_<t)

    No gradient flows through the choice, into the parameters that made it (Bengio et al. 2015,
    arXiv:1506.03099, section 2.4) or into teacher_prob. While teacher_prob is 1, no coin is tossed
    and no token is drawn.

    Args:
      model: the model whose decode_step is scanned.
      coin: "token", "sequence" or "batch"; see `toss_coins`.
      feed: "sample" draws a token from the model, "argmax" takes its most likely one.
      temperature: sampling temperature.
      top_k: sample from the k most likely tokens; 0 for all.

    Returns:
      rollout(params, memory, target, key, teacher_prob) -> Fed.

    Raises:
      ValueError: coin or feed is unknown, or the feed cannot use this temperature or top_k.
    """
    feeding = Feeding(model.vocab_size, coin, feed, temperature, top_k)

    def own_or_gold(params, memory, target, key, teacher_prob):
        draws = feeding.draw(target, key, teacher_prob)

        def step(carry, draws: Draws):
            decoder_carry, token = carry
            decoder_carry, logits = model.decode_step(params, memory, decoder_carry, token)
            token = feeding.next(logits, draws)
            return (decoder_carry, token), token

        start = model.initial_carry(params, memory), feeding.first(target.shape[1])
        return feeding.fed(jax.lax.scan(step, start, draws)[1], draws)

    def gold(params, memory, target, key, teacher_prob):
        return feeding.all_gold(target)

    feed_tokens = unless_all_gold(own_or_gold, gold)

    def rollout(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        target, teacher_prob = jnp.asarray(target, jnp.int32).T, jnp.float32(teacher_prob)
        return feed_tokens(params, memory, target, key, teacher_prob).turned()

    return rollout


def _check_coin(coin: str) -> None:
    if coin not in COINS:
        raise ValueError(f"coin is {coin!r}; {did_you_mean(coin, COINS)}")
