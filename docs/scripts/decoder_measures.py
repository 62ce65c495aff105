"""What decoder_passes.py measures: predictions, hidden states and gradients, gold-fed and own-fed.

Own-fed is greedy throughout: the likeliest token goes in, no coin is tossed, nothing is dropped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch, gold_inputs
from s2s_jax.decoding import greedy
from s2s_jax.feeding import RolloutOptions
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel
from s2s_jax.rollout import make_rollout

Measure = Callable[[Params, Batch], dict[str, jax.Array]]

WRONG_BEFORE = ("0", "1", "2", "3 or more")
NEWEST = ("1 or more, newest token right", "1 or more, newest token wrong")
SINCE = ("before", "0", "1", "2", "3", "4", "5 or more")
TWO_WORDS = "(two different words)"
_NUM_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean or a ratio over words, with its 95 % interval.

    Attributes:
      value: NaN where there is nothing to average.
      low: lower end.
      high: upper end.
      num_steps: target steps that entered.
      num_words: words they are from.
    """

    value: float
    low: float
    high: float
    num_steps: int
    num_words: int

    def __str__(self) -> str:
        if not self.num_words:
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


NOTHING = Interval(np.nan, np.nan, np.nan, 0, 0)


class Scores(NamedTuple):
    """What one model got right; pairs are (gold prefixes, own prefixes).

    Attributes:
      by_position: two [time], the accuracy at each position; past the hypothesis' end an error.
      token_accuracy: over all tokens.
      exact_match: over words.
      after_error: accuracy over the tokens after the first wrong one.
      num_compared: tokens up to and including the first wrong one.
      num_differing: those of them that are predicted differently with gold and own prefixes.
    """

    by_position: tuple[np.ndarray, np.ndarray]
    token_accuracy: tuple[float, float]
    exact_match: tuple[float, float]
    after_error: tuple[float, float]
    num_compared: int
    num_differing: int


class GradientRow(NamedTuple):
    """How the gradients of some steps compare to the gold-fed ones of the same steps."""

    cosine: Interval
    length: Interval


def bootstrap_ratio(above: np.ndarray, below: np.ndarray, where: np.ndarray) -> Interval:
    """A ratio of sums over steps; what is resampled are words, whose steps stay together.

        sum_it above_it / sum_it below_it   over the i, t where it holds

    With `below` 1 it is the mean over these steps.

    Args:
      above: [words, time].
      below: [words, time].
      where: [words, time] bool.
    """
    if not where.any():
        return NOTHING
    words = where.any(1)
    totals = np.stack([np.where(where, one, 0.0).sum(1)[words] for one in (above, below)])
    sums = totals @ _resamples(totals.shape[1]).T
    low, high = np.quantile(sums[0] / sums[1], [0.025, 0.975])
    value = totals[0].sum() / totals[1].sum()
    return Interval(float(value), float(low), float(high), int(where.sum()), totals.shape[1])


def make_predict(model: Seq2SeqModel) -> Measure:
    """Makes (params, words) -> the likeliest tokens [words, time], "gold"-fed and "own"-fed."""

    def predict(params: Params, words: Batch) -> dict[str, jax.Array]:
        memory, target, _ = _encode(model, params, words)
        return {
            "gold": model.decode_sequence(params, memory, gold_inputs(target)).argmax(-1),
            "own": greedy(model, params, memory, target.shape[1]).tokens,
        }

    return predict


def score(predicted: dict[str, np.ndarray], words: Batch) -> Scores:
    """Scores what `make_predict` predicted."""
    target, mask = np.asarray(words.target), np.asarray(words.target_mask)
    gold, own = ((predicted[name] == target) & mask for name in ("gold", "own"))
    wrong = ~gold & mask
    num_there = np.maximum(mask.sum(0), 1)
    first = mask & (np.cumsum(wrong, 1) - wrong == 0)  # up to and including the first wrong one

    def accuracy(where: np.ndarray) -> tuple[float, float]:
        return float(gold[where].mean()), float(own[where].mean())

    return Scores(
        by_position=(gold.sum(0) / num_there, own.sum(0) / num_there),
        token_accuracy=accuracy(mask),
        exact_match=(float((gold | ~mask).all(1).mean()), float((own | ~mask).all(1).mean())),
        after_error=accuracy(mask & ~first),
        num_compared=int(first.sum()),
        num_differing=int((predicted["gold"] != predicted["own"])[first].sum()),
    )


def make_states(model: Seq2SeqModel) -> Measure:
    """Makes (params, words) -> how far the hidden states are from those of gold-fed decoding.

    Of each step [words, time], of the state that the step hands on: "distance", between gold-fed
    and own-fed decoding of the word; "other", between gold-fed decoding of the word and of another
    one, where "both" have the step; and "wrong", whether the token that was fed is.
    """
    rollout = make_rollout(model, RolloutOptions(feed="argmax"))

    def states(params: Params, words: Batch) -> dict[str, jax.Array]:
        memory, target, mask = _encode(model, params, words)
        gold = gold_inputs(target)
        own = rollout(
            params, memory, target, target > 0, jax.random.key(0), jnp.float32(0.0)
        ).tokens

        def step(carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
            carry, _ = model.decode_step(params, memory, carry, token)
            return carry, carry.layers[-1][0]

        def unroll(tokens: jax.Array) -> jax.Array:
            start = model.initial_carry(params, memory, tokens.shape[1])
            hidden = jax.lax.scan(step, start, tokens.T)[1]
            return hidden.swapaxes(0, 1)

        hidden = unroll(gold)
        return {
            "distance": jnp.linalg.norm(hidden - unroll(own), axis=-1),
            "other": jnp.linalg.norm(hidden - jnp.roll(hidden, 1, 0), axis=-1),
            "both": mask & jnp.roll(mask, 1, 0),
            "wrong": (own != gold) & mask,
        }

    return states


def compare_states(found: dict[str, np.ndarray]) -> dict[str, tuple[Interval, Interval]]:
    """The distance by the steps since the first wrong token was fed.

    As a share of the distance between two different words: over all steps, and over those that
    were fed one wrong token so far and no more.
    """
    num_wrong = np.cumsum(found["wrong"], 1)
    since = np.cumsum(num_wrong > 0, 1) - 1
    rows = {}
    for place, name in enumerate(SINCE):
        there = since >= place - 1 if name == SINCE[-1] else since == place - 1
        where = found["both"] & there
        alone = where & (num_wrong <= 1)
        several, once = (
            bootstrap_ratio(found["distance"], found["other"], some) for some in (where, alone)
        )
        rows[name] = several, once
    return rows


def make_gradients(model: Seq2SeqModel) -> Measure:
    """Makes (params, words) -> the gradient of each step's own loss, gold-fed and own-fed.

        g_t = gradient in all parameters of -log p(y_t | x_1 ... x_t),   y_t always gold

    Of each step [words, time]: lengths "gold" and "own" of g_t; the "cosine" between the two; the
    cosine "other" between gold-fed g_t of two words, where "both" have the step; "wrong", whether
    the token fed there is; and the "mask". Of each word [words, parameters]: "gold_after" and
    "own_after", the sum of g_t over the steps that were fed a wrong token before or then.
    """
    rollout = make_rollout(model, RolloutOptions(feed="argmax"))

    def losses(params: Params, word: Batch, tokens: jax.Array) -> jax.Array:
        memory, target, mask = _encode(model, params, jax.tree.map(lambda one: one[None], word))
        log_probs = jax.nn.log_softmax(model.decode_sequence(params, memory, tokens[None]))
        of_target = jnp.take_along_axis(log_probs, target[..., None], -1)[..., 0]
        return jnp.where(mask, -of_target, 0.0)[0]

    def step_gradients(params: Params, word: Batch, tokens: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(jax.jacrev(losses)(params, word, tokens))
        return jnp.concatenate([leaf.reshape(len(tokens), -1) for leaf in leaves], axis=1)

    def gradients(params: Params, words: Batch) -> dict[str, jax.Array]:
        memory, target, mask = _encode(model, params, words)
        gold = gold_inputs(target)
        own = rollout(
            params, memory, target, target > 0, jax.random.key(0), jnp.float32(0.0)
        ).tokens
        of_words = jax.vmap(step_gradients, in_axes=(None, 0, 0))
        of_gold, of_own = of_words(params, words, gold), of_words(params, words, own)
        wrong = (own != gold) & mask
        after = (jnp.cumsum(wrong, 1) > 0) & mask
        return {
            "gold": jnp.linalg.norm(of_gold, axis=-1),
            "own": jnp.linalg.norm(of_own, axis=-1),
            "cosine": _cosine(of_gold, of_own),
            "other": _cosine(of_gold, jnp.roll(of_gold, 1, 0)),
            "both": mask & jnp.roll(mask, 1, 0),
            "mask": mask,
            "wrong": wrong,
            "gold_after": jnp.einsum("btp,bt->bp", of_gold, after),
            "own_after": jnp.einsum("btp,bt->bp", of_own, after),
        }

    return gradients


def compare_gradients(found: dict[str, np.ndarray]) -> dict[str, GradientRow]:
    """Steps grouped by how many wrong tokens were fed so far, and by the newest of them."""
    mask, wrong = found["mask"], found["wrong"]
    num_wrong = np.cumsum(wrong, 1)
    groups = {
        name: mask & (num_wrong >= count if name == WRONG_BEFORE[-1] else num_wrong == count)
        for count, name in enumerate(WRONG_BEFORE)
    }
    groups[NEWEST[0]] = mask & (num_wrong > 0) & ~wrong
    groups[NEWEST[1]] = mask & wrong
    ones = np.ones_like(found["gold"])
    rows = {
        name: GradientRow(
            bootstrap_ratio(found["cosine"], ones, where),
            bootstrap_ratio(found["own"], found["gold"], where),
        )
        for name, where in groups.items()
    }
    chance = bootstrap_ratio(found["other"], ones, found["both"])
    return rows | {TWO_WORDS: GradientRow(chance, NOTHING)}


def compare_sums(gold: np.ndarray, own: np.ndarray) -> tuple[Interval, ...]:
    """Cosines between gradients that are summed over many words, as an optimiser sees them.

    Args:
      gold: [words, parameters], each word's gold-fed gradient of the steps after an error; 0 for a
        word without one.
      own: the same, own-fed.

    Returns:
      Own-fed with gold-fed of the same words; own-fed of one half of the words with gold-fed of the
      other half; gold-fed of one half with gold-fed of the other, and own-fed with own-fed: what
      the difference between words leaves of full agreement. The first has a bootstrap interval, the
      others the mean of random halvings and what 95 % of them lie between.
    """
    affected = np.abs(own).sum(1) > 0
    gold, own = gold[affected].astype(float), own[affected].astype(float)
    count = len(gold)
    if count < 4:
        return (NOTHING,) * 4
    own_gold, gold_gold, own_own = own @ gold.T, gold @ gold.T, own @ own.T

    def inner(one: np.ndarray, products: np.ndarray, two: np.ndarray) -> np.ndarray:
        return ((one @ products) * two).sum(1)

    def length(weights: np.ndarray, products: np.ndarray) -> np.ndarray:
        return np.sqrt(inner(weights, products, weights))

    def interval(value: float, spread: np.ndarray) -> Interval:
        low, high = np.quantile(spread, [0.025, 0.975])
        return Interval(value, float(low), float(high), count, count)

    draws = np.concatenate([np.ones((1, count)), _resamples(count)])
    same = inner(draws, own_gold, draws) / length(draws, own_own) / length(draws, gold_gold)
    places = np.tile(np.arange(count), (_NUM_RESAMPLES, 1))
    first = (np.random.default_rng(1).permuted(places, axis=1) < count // 2).astype(float)
    rest = 1.0 - first

    def halves(with_other: np.ndarray, one: np.ndarray, other: np.ndarray) -> Interval:
        cosines = inner(first, with_other, rest) / length(first, one) / length(rest, other)
        return interval(float(cosines.mean()), cosines)

    return (
        interval(float(same[0]), same[1:]),
        halves(own_gold, own_own, gold_gold),
        halves(gold_gold, gold_gold, gold_gold),
        halves(own_own, own_own, own_own),
    )


def _encode(
    model: Seq2SeqModel, params: Params, words: Batch
) -> tuple[Memory, jax.Array, jax.Array]:
    """The memory, and the target with its mask."""
    source, source_mask, target, mask = (jnp.asarray(one) for one in words)
    return model.encode(params, source, source_mask, None), target, mask


def _cosine(one: jax.Array, two: jax.Array) -> jax.Array:
    lengths = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(two, axis=-1)
    return (one * two).sum(-1) / jnp.maximum(lengths, 1e-20)


def _resamples(count: int) -> np.ndarray:
    """[resamples, count] how often each word was drawn."""
    generator = np.random.default_rng(0)
    return generator.multinomial(count, np.full(count, 1 / count), _NUM_RESAMPLES).astype(float)
