"""The one place where the fed token is chosen: gold, or the model's own.

What the decoder passes itself, its carry, is never touched here; a training method decides only
which token goes in beside it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.batch import BOS, gold_inputs
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel
from s2s_jax.names import nearest
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import make_token_chooser

COINS = ("token", "sequence", "batch")
"""What can share a toss; `make_rollout` refuses any other."""


class Fed(NamedTuple):
    """What the decoder was fed.

    Attributes:
      tokens: [batch, time] int32 ids; BOS first.
      is_gold: [batch, time] bool, where the coin said gold; True at the first step, where no coin
        is tossed. The model's own token can equal the gold one, so this is not `tokens == gold`.
    """

    tokens: jax.Array
    is_gold: jax.Array


Rollout = Callable[[Params, Memory, jax.Array, jax.Array, jax.Array], Fed]
"""(params, memory, target [batch, time], key, teacher_prob) -> Fed."""


def toss_coins(
    key: jax.Array, teacher_prob: jax.Array, batch_size: int, num_steps: int, coin: str = "token"
) -> jax.Array:
    """Draws which inputs are gold, each with probability teacher_prob.

        is_gold ~ Bernoulli(teacher_prob)   per token, per sequence or per batch

    Args:
      key: one PRNG key; target step t draws from fold_in(key, t), so a longer batch tosses the
        same coins and then some more.
      teacher_prob: scalar in [0, 1]; at 1 every coin is gold, at 0 none.
      batch_size: number of sequences.
      num_steps: number of target steps that toss.
      coin: what shares a toss: nothing ("token"; the paper's), the tokens of a sequence
        ("sequence"; "much worse" in Bengio et al. 2015, arXiv:1506.03099, section 2.4, footnote)
        or the whole batch ("batch").

    Returns:
      [batch_size, num_steps] bool.

    Raises:
      ValueError: an unknown coin.

    Example:
      >>> coins = toss_coins(jax.random.key(0), jnp.float32(0.5), 1000, 3, coin="sequence")
      >>> bool(jnp.all(coins == coins[:, :1])), abs(float(coins.mean()) - 0.5) < 0.05
      (True, True)
    """
    _check_coin(coin)
    if coin == "token":
        keys = per_step_keys(key, num_steps)
        draws = jax.vmap(lambda k: jax.random.uniform(k, (batch_size,)), out_axes=1)(keys)
    elif coin == "sequence":
        draws = jax.random.uniform(key, (batch_size, 1))
    else:
        draws = jax.random.uniform(key, (1, 1))
    return jnp.broadcast_to(draws < teacher_prob, (batch_size, num_steps))


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

    No gradient passes: neither through the choice nor into the parameters that made it
    (Bengio et al. 2015, arXiv:1506.03099, section 2.4). While teacher_prob is 1 nothing is scanned.

    Args:
      model: its decode_step is scanned.
      coin: "token", "sequence" or "batch"; see `toss_coins`.
      feed: "sample" draws the own token from the model, "argmax" takes its likeliest.
      temperature: of the sample.
      top_k: sample among the k likeliest; 0 for all.

    Returns:
      rollout(params, memory, target, key, teacher_prob) -> Fed.

    Raises:
      ValueError: an unknown coin or feed, a temperature or top_k that the feed cannot honour.
    """
    _check_coin(coin)
    if top_k > model.vocab_size:
        raise ValueError(f"top_k is {top_k}, and the vocabulary has {model.vocab_size} tokens")
    choose_token = make_token_chooser(feed, temperature, top_k)

    def own_or_gold(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        batch_size, length = target.shape
        is_gold = toss_coins(stream_key(key, "coins"), teacher_prob, batch_size, length - 1, coin)
        sample_keys = per_step_keys(stream_key(key, "samples"), length - 1)
        start = jnp.full((batch_size,), BOS, jnp.int32)

        def step(carry, inputs):
            decoder_carry, token = carry
            gold_token, gold_next, sample_key = inputs
            decoder_carry, logits = model.decode_step(params, memory, decoder_carry, token)
            token = jnp.where(gold_next, gold_token, choose_token(logits, sample_key))
            return (decoder_carry, token), token

        _, tokens = jax.lax.scan(
            step,
            (model.initial_carry(params, memory), start),
            (target[:, :-1].T, is_gold.T, sample_keys),
        )
        return Fed(
            jnp.concatenate([start[:, None], tokens.T], axis=1),
            jnp.pad(is_gold, ((0, 0), (1, 0)), constant_values=True),
        )

    def rollout(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        params, memory = jax.lax.stop_gradient((params, memory))
        target = jnp.asarray(target, jnp.int32)
        return jax.lax.cond(
            teacher_prob < 1.0,
            own_or_gold,
            lambda params, memory, target, key, teacher_prob: Fed(
                gold_inputs(target), jnp.ones(target.shape, bool)
            ),
            params,
            memory,
            target,
            key,
            jnp.asarray(teacher_prob, jnp.float32),
        )

    return rollout


def _check_coin(coin: str) -> None:
    if coin not in COINS:
        raise ValueError(f"coin is {coin!r}; {nearest(coin, COINS)}")
