"""A score of one's own: how often the last letter is wrong."""

import numpy as np

from s2s_jax.lab.evaluation.scores import Metric, Score, Scorer, percentage


def final_errors(hypotheses, references):
    """[items, (last letter is wrong, 1)]; the score is a function of their sums."""
    pairs = zip(hypotheses, references, strict=True)
    return np.array([(said[-1:] != texts[0][-1:], 1) for said, texts in pairs], float)


metric = Metric("final", "final", "%", better="lower", long_label="final-letter error rate")
scorer = Scorer("final", (Score(metric, final_errors, percentage),))
