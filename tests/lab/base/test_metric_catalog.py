import math

import pytest

from s2s_jax.lab.base.metric_catalog import (
    ACCURACIES,
    CATALOG,
    GAP,
    NO_INTERVAL,
    Metric,
    ending_with,
)


def test_every_metric_is_in_the_catalogue_once():
    names = [one.name for one in (*CATALOG.scores, *CATALOG.measures)]
    assert len(set(names)) == len(names)
    for name in (*ACCURACIES, GAP, *CATALOG.columns, *CATALOG.headlines):
        assert name.rpartition("/")[2] in names
    assert all(CATALOG.describe(name).better for name in CATALOG.headlines)


def test_stored_fractions_are_shown_in_percent_like_error_rates():
    for name, stored in (("test/own/token_accuracy", 0.847), ("test/own/wer", 84.7)):
        metric = CATALOG.describe(name)
        assert metric.text(stored) == "84.70 %"
        assert metric.difference_unit == "points"
    assert CATALOG.describe("train/teacher_prob").text(0.5) == "0.500"
    assert CATALOG.describe("train/tokens_per_second").text(12345.6) == "12,346 tokens/s"
    assert CATALOG.describe("gold/nll").show(0.25, signed=True) == "+0.250"
    assert CATALOG.describe("gold/nll").show(math.nan) == NO_INTERVAL


def test_a_curve_is_shown_like_its_metric():
    curve, value = (CATALOG.describe(f"exposure/own/hazard{end}") for end in ("_by_position", ""))
    assert curve == value
    assert (curve.unit, curve.scale, curve.prefixes) == ("%", 100, "own")


def test_an_unknown_metric_is_shown_by_its_full_name():
    for name in ("own/nobody", ""):
        metric = CATALOG.describe(name)
        assert (metric.label, metric.unit, metric.text(0.5)) == (name or "?", "", "0.5000")


def test_only_accuracies_name_their_prefixes():
    titles = [CATALOG.describe(f"test/{name}").title for name in (*ACCURACIES, "own/wer", GAP)]
    assert titles == ["gold accuracy", "own accuracy", "WER", "gap"]


def test_columns_are_ordered_by_prefixes_and_headlines_by_rank():
    assert [one.partition("/")[0] for one in CATALOG.columns] == ["gold"] * 2 + ["own"] * 8 + [GAP]
    names = ["test/gap", "test/gold/nll", "test/own/exact_match", "test/own/chrf", "test/own/per"]
    judged = []
    while (headline := CATALOG.headline(names)) is not None:
        judged.append(headline)
        names.remove(headline)
    assert judged == ["test/own/per", "test/own/chrf", "test/own/exact_match", "test/gold/nll"]
    assert names == ["test/gap"]


def test_a_runs_own_scores_come_first_and_in_their_order():
    mine = Metric("mine", "mine", better="higher"), Metric("wer", "my WER", "%", better="lower")
    catalog = CATALOG.with_scores([*mine, *mine])
    assert catalog.score_names[:3] == ("own/mine", "own/wer", "own/per")
    assert len(catalog.scores) == len(CATALOG.scores) + 1
    assert catalog.describe("own/wer").label == "my WER"
    assert CATALOG.describe("own/wer").label == "WER"
    # Measures are not scores: a run cannot rename them.
    other = CATALOG.with_scores([Metric("token_accuracy", "mine")])
    assert other.describe("own/token_accuracy") == CATALOG.describe("own/token_accuracy")


def test_names_end_at_a_slash():
    assert ending_with(["a/down/wer", "own/wer", "b/own/wer"], ["own/wer"]) == [
        "own/wer",
        "b/own/wer",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": ""}, "needs a name"),
        ({"label": ""}, "needs a name and a label"),
        ({"better": "more"}, 'better is \'more\', not "higher" or "lower"'),
        ({"digits": -1}, r"digits is -1, not in \[0, 12\]"),
        ({"scale": math.inf}, "scale is inf, not a positive number"),
        ({"scale": 0.0}, "scale is 0.0, not"),
    ],
)
def test_metrics_that_cannot_be_shown_are_rejected(values, said):
    kept = Metric("mine", "mine").to_dict()
    with pytest.raises(ValueError, match=said):
        Metric.from_dict(kept | values)
