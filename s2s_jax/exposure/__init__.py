"""Measures exposure bias: how much worse a model is on its own prefixes than on gold ones.

    all_measures      measure_exposure, measure_known_truth: everything, by name
    measure           Measure: a value or a curve, its interval, and the number of sequences
    observations      from a model and a split to arrays, jitted
    positions         accuracy and loss by position, the gap, hazard and post-error rate
    recovery          self-recovery from a corrupted input
    edit_oracle       regret against the tokens that minimise the final edit distance
    state_divergence  MMD of decoder states after gold and after own prefixes
    outputs           length, end and repetition of the model's outputs
    known_truth       accumulated error and EB-C against a known truth, exactly
    drawn_prefixes    the same over sampled prefixes
    next_token        distributions of the next symbol as functions and tables
    distances         between two such distributions
    intervals         the bootstrap over whole sequences that all of them use

Everything is numpy, except `observations` and the functions of `recovery` and `edit_oracle` that it
calls.
"""

from s2s_jax.exposure.all_measures import (
    GROUPS,
    measure_exposure,
    measure_known_truth,
    measure_observations,
)
from s2s_jax.exposure.distances import DISTANCES, jensen_shannon, total_variation
from s2s_jax.exposure.drawn_prefixes import (
    AccumulatedErrorEstimate,
    estimate_accumulated_error,
    estimate_relative_distance,
)
from s2s_jax.exposure.intervals import Bootstrap, Interval
from s2s_jax.exposure.known_truth import (
    AccumulatedError,
    RelativeDistance,
    accumulated_error,
    relative_distance,
)
from s2s_jax.exposure.measure import Measure
from s2s_jax.exposure.next_token import (
    NextTokenProbs,
    Tables,
    make_next_token_probs,
    tabulate,
)
from s2s_jax.exposure.observations import (
    NUM_STATES,
    Observations,
    make_observe_step,
    make_read_states,
    observe,
)

__all__ = [
    "DISTANCES",
    "GROUPS",
    "NUM_STATES",
    "AccumulatedError",
    "AccumulatedErrorEstimate",
    "Bootstrap",
    "Interval",
    "Measure",
    "NextTokenProbs",
    "Observations",
    "RelativeDistance",
    "Tables",
    "accumulated_error",
    "estimate_accumulated_error",
    "estimate_relative_distance",
    "jensen_shannon",
    "make_next_token_probs",
    "make_observe_step",
    "make_read_states",
    "measure_exposure",
    "measure_known_truth",
    "measure_observations",
    "observe",
    "relative_distance",
    "tabulate",
    "total_variation",
]
