"""Every measure of exposure bias of one model on one split, by name."""

from collections.abc import Collection, Iterable

import jax
import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.exposure import outputs
from s2s_jax.exposure.distances import DISTANCES
from s2s_jax.exposure.drawn_prefixes import estimate_accumulated_error, estimate_relative_distance
from s2s_jax.exposure.edit_oracle import edit_oracle_regret
from s2s_jax.exposure.intervals import Bootstrap, Interval
from s2s_jax.exposure.known_truth import accumulated_error, relative_distance
from s2s_jax.exposure.measure import MIN_COUNT, Measure, single
from s2s_jax.exposure.next_token import NextTokenProbs, tabulate
from s2s_jax.exposure.observations import (
    NUM_STATES,
    Observations,
    StateOf,
    make_observe_step,
    make_read_states,
    observe,
)
from s2s_jax.exposure.positions import (
    exposure_gap,
    first_errors,
    mean_by_position,
    sequence_mean,
    token_mean,
)
from s2s_jax.exposure.recovery import KINDS, self_recovery
from s2s_jax.exposure.state_divergence import state_divergence
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.names import did_you_mean
from s2s_jax.theory.chains import MAX_SEQUENCES

GROUPS = ("positions", "outputs", "recovery", "edit_oracle", "states")
"""The groups of measures that can be computed separately; see `measure_observations`."""


def measure_exposure(
    model: Seq2SeqModel,
    params: Params,
    batches: Iterable[tuple[np.ndarray, Batch]],
    key: jax.Array,
    *,
    max_length: int,
    groups: Collection[str] = (),
    min_count: int = MIN_COUNT,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    num_states: int = NUM_STATES,
    num_permutations: int = 1000,
    state_of: StateOf | None = None,
) -> dict[str, Measure]:
    """Measures the exposure bias of a model on a split, by all measures that need no known truth.

    Args:
      model: the functions of `Seq2SeqModel`.
      params: its parameters.
      batches: (indices, batch) pairs that hold every example once; index -1 for filler rows.
      key: one PRNG key, for the prefixes sampled from the model and the corrupted tokens.
      max_length: maximum number of tokens in a hypothesis, including EOS; should be at least that
        of the longest target, otherwise exact match with gold and own prefixes may differ.
      groups: names of `GROUPS` to compute; empty for all.
      min_count: the minimum number of sequences for a point on a curve.
      num_resamples: of the bootstrap.
      confidence: of the intervals.
      seed: of the bootstrap and of the permutations.
      num_states: number of sequences whose decoder states are compared; 0 leaves out "states/".
      num_permutations: of the test of those states.
      state_of: selects the part of a decoder's carry that is compared, see `make_read_states`.

    Returns:
      See `measure_observations`.

    Raises:
      ValueError: the split is empty or no position is reached by min_count sequences, a group is
        unknown, or a number is out of range.
    """
    wanted = _wanted(groups)
    if "states" not in wanted:
        num_states = 0
    if num_states and num_states < min_count:
        raise ValueError(
            f"num_states is {num_states}, below min_count {min_count}: no position would have"
            " enough states (0 leaves them out)"
        )
    draws, corrupts = "edit_oracle" in wanted or num_states > 0, "recovery" in wanted
    observations = observe(
        jax.jit(make_observe_step(model, max_length, draws=draws, corrupts=corrupts)),
        params,
        batches,
        key,
        jax.jit(make_read_states(model, state_of)),
        num_states,
    )
    return measure_observations(
        observations,
        groups=groups,
        min_count=min_count,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
        num_permutations=num_permutations,
    )


def measure_observations(
    seen: Observations,
    *,
    groups: Collection[str] = (),
    min_count: int = MIN_COUNT,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    num_permutations: int = 1000,
) -> dict[str, Measure]:
    """Computes all measures from observations; "gold/" is with gold prefixes, "own/" with own ones.

    Args:
      seen: from `observe`.
      groups: names of `GROUPS`; empty for all. Measures without observations are left out.
      min_count: see `measure_exposure`, also for the others.
      num_resamples: likewise.
      confidence: likewise.
      seed: likewise.
      num_permutations: likewise.

    Returns:
      By name, in the groups
        positions:
          gold/ and own/: token_accuracy, token_accuracy_macro, accuracy_by_position;
          gap, gap_macro, gap_by_position: gold minus own accuracy;
          gold/nll, gold/nll_by_position;
          own/: hazard, hazard_by_position, post_error_rate, post_error_rate_by_distance,
            amplification;
        recovery: recovery/uniform/ and recovery/plausible/: nll_increase_by_distance, half_life;
        edit_oracle: edit_oracle/: gold_cost, own_cost, regret, accumulated_by_length,
          excess_percent_by_length;
        states: states/: mmd_by_position, p_value_by_position;
        outputs: gold/ and own/: exact_match, repetition (of the targets and of the greedy outputs);
          own/: length_ratio, no_eos_rate.
      A curve about errors or outputs has no points if there are too few of them.

    Raises:
      ValueError: no position has min_count sequences, a group is unknown, or a number is out of
        range.
    """
    wanted = _wanted(groups)
    mask, num_sequences = seen.mask, len(seen.mask)
    most = int(mask.sum(0).max(initial=0))
    if most < max(min_count, 1):
        raise ValueError(
            f"no position has min_count = {min_count} sequences, the most is {most}: lower"
            " min_count or measure a larger split"
        )
    bootstrap = Bootstrap(num_sequences, num_resamples, confidence, seed)
    measures: dict[str, Measure] = {}
    if "positions" in wanted:
        measures |= _measure_positions(seen, bootstrap, min_count)
    if "recovery" in wanted:
        for kind in (kind for kind in KINDS if kind in seen.corrupted_nll):
            corrupted = seen.corrupted_nll[kind]
            recovery = self_recovery(
                seen.gold_nll, corrupted, mask, seen.corrupted_at, bootstrap, min_count
            )
            measures |= {f"recovery/{kind}/{name}": one for name, one in recovery.items()}
    if "edit_oracle" in wanted and seen.sampled_tokens.size:
        regret = edit_oracle_regret(
            seen.gold_nll, mask, seen.oracle_cost, seen.sampled_mask, bootstrap, min_count
        )
        measures |= {f"edit_oracle/{name}": one for name, one in regret.items()}
    if "states" in wanted and len(seen.state_rows):
        states = state_divergence(
            seen.gold_states,
            seen.own_states,
            seen.state_mask,
            Bootstrap(len(seen.state_rows), num_resamples, confidence, seed),
            num_permutations=num_permutations,
            seed=seed,
            min_count=min_count,
        )
        measures |= {f"states/{name}": one for name, one in states.items()}
    if "outputs" in wanted:
        measures |= _measure_outputs(seen, bootstrap, min_count)
    return measures


def _wanted(groups: Collection[str]) -> set[str]:
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"no measures {unknown[0]!r}; {did_you_mean(unknown[0], GROUPS)}")
    return set(groups or GROUPS)


def _measure_positions(
    seen: Observations, bootstrap: Bootstrap, min_count: int
) -> dict[str, Measure]:
    mask = seen.mask
    measures: dict[str, Measure] = {}
    for name, right in (("gold", seen.gold_right), ("own", seen.own_right)):
        measures |= {
            f"{name}/token_accuracy": token_mean(right, mask, bootstrap, "share"),
            f"{name}/token_accuracy_macro": sequence_mean(right, mask, bootstrap, "share"),
            f"{name}/accuracy_by_position": mean_by_position(
                right, mask, bootstrap, "share", min_count
            ),
        }
    measures |= exposure_gap(seen.gold_right, seen.own_right, mask, bootstrap, min_count)
    measures["gold/nll"] = token_mean(seen.gold_nll, mask, bootstrap, "nats")
    measures["gold/nll_by_position"] = mean_by_position(
        seen.gold_nll, mask, bootstrap, "nats", min_count
    )
    errors = first_errors(seen.own_right, mask, bootstrap, min_count)
    return measures | {f"own/{name}": one for name, one in errors.items()}


def _measure_outputs(
    seen: Observations, bootstrap: Bootstrap, min_count: int
) -> dict[str, Measure]:
    own_lengths = seen.own_lengths - seen.own_finished
    gold_lengths = seen.mask.sum(1) - 1
    return {
        "gold/exact_match": outputs.share(
            outputs.exact_match(seen.gold_right, seen.mask), bootstrap
        ),
        "own/exact_match": outputs.share(seen.own_exact, bootstrap),
        "own/length_ratio": outputs.length_ratio(own_lengths, gold_lengths, bootstrap),
        "own/no_eos_rate": outputs.share(~seen.own_finished, bootstrap),
        "gold/repetition": outputs.repetition(seen.target, gold_lengths, bootstrap, min_count),
        "own/repetition": outputs.repetition(seen.own_tokens, own_lengths, bootstrap, min_count),
    }


def measure_known_truth(
    truth: NextTokenProbs,
    model: NextTokenProbs,
    num_symbols: int,
    length: int,
    *,
    num_sources: int = 1,
    num_samples: int = 2000,
    max_sequences: int = MAX_SEQUENCES,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Measure]:
    """Measures exposure bias against a known truth, exactly if its prefixes can be enumerated.

    Args:
      truth: prefixes [n, t] -> [n, num_symbols].
      model: likewise, as made by `make_next_token_probs`.
      num_symbols: the number of different symbols.
      length: of the sequences.
      num_sources: 1 if both functions are for a single source, whatever n is; otherwise they are
        for one source per row and take n = num_sources prefixes, which are sampled, one per source.
      num_samples: number of prefixes to sample if a single source has too many to enumerate.
      max_sequences: the largest number of sequences, num_symbols**length, to enumerate.
      num_resamples: of the bootstrap, if prefixes are sampled.
      confidence: of its intervals.
      seed: of the prefixes and of the bootstrap.

    Returns:
      "truth/kl", KL(P || Q) of whole sequences; "truth/accumulated_by_length" and
      "truth/excess_percent_by_length", see `accumulated_error`;
      "truth/eb_c_total_variation_by_position" and "truth/eb_c_jensen_shannon_by_position", see
      `relative_distance`. If they are exact, low = high = value, and n counts the prefixes.

    Raises:
      ValueError: as for `accumulated_error` and `estimate_accumulated_error`.
    """
    if num_sources < 1:
        raise ValueError(f"num_sources is {num_sources}; it must be at least 1")
    at = np.arange(1, length + 1)

    def along(interval: Interval, n: np.ndarray, axis: str, unit: str) -> Measure:
        return Measure(*interval, n=n, axis=axis, at=at, unit=unit)

    if num_sources == 1 and num_symbols**length <= max_sequences:
        of_truth, of_model = (tabulate(probs, num_symbols, length) for probs in (truth, model))
        error = accumulated_error(of_truth, of_model)
        errors = error, error, error
        relative = {name: (relative_distance(of_truth, of_model, name),) * 3 for name in DISTANCES}
        num_at = num_symbols ** (at - 1)  # prefixes of each position
        num_until = np.cumsum(num_at)
    else:
        count = num_samples if num_sources == 1 else num_sources
        options = {"num_samples": count, "seed": seed, "confidence": confidence}
        options |= {"num_resamples": num_resamples}
        found = estimate_accumulated_error(truth, model, length, **options)
        errors = found.value, found.low, found.high
        relative = {
            name: estimate_relative_distance(truth, model, length, name, **options)
            for name in DISTANCES
        }
        num_at = num_until = np.full(length, count)
    kl = Interval(*(np.asarray(one.gold_divergence[-1]) for one in errors))
    measures = {
        "truth/kl": single(kl, num_until[-1], "nats"),
        "truth/accumulated_by_length": along(
            Interval(*(one.accumulated for one in errors)), num_until, "length", "tokens"
        ),
        "truth/excess_percent_by_length": along(
            Interval(*(one.excess_percent for one in errors)), num_until, "length", "percent"
        ),
    }
    for name, ends in relative.items():
        measures[f"truth/eb_c_{name}_by_position"] = along(
            Interval(*(one.ratio for one in ends)), num_at, "position", "ratio"
        )
    return measures
