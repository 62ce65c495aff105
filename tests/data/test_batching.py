from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax.batch import EOS, PAD, UNK
from s2s_jax.data.batching import (
    BatchShape,
    Sequences,
    TokenPairs,
    TrainingBatches,
    choose_buckets,
    evaluation_batches,
    tokenize,
)
from s2s_jax.data.pairs import DataError, one_reference
from s2s_jax.data.vocabularies import TokenVocabulary

LETTERS = TokenVocabulary("characters", "abc")

lengths = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40)


def make_tokens(pairs_of_lengths) -> TokenPairs:
    """Pair i has source tokens 100 + i, so that a row shows which pair it is."""
    sources = [[100 + i] * (source + 1) for i, (source, _) in enumerate(pairs_of_lengths)]
    targets = [[500 + i] * (target + 1) for i, (_, target) in enumerate(pairs_of_lengths)]
    return TokenPairs(Sequences.of(sources), Sequences.of(targets))


def random_tokens(num_pairs=101, seed=0) -> TokenPairs:
    generator = np.random.default_rng(seed)
    return make_tokens(generator.integers(0, 13, size=(num_pairs, 2)).tolist())


def check_rows(tokens, indices, batch):
    """The padding of a batch, row by row, in the simplest way."""
    for row, index in enumerate(indices):
        source, target = batch.source[row].tolist(), batch.target[row].tolist()
        num_source, num_target = batch.source_mask[row].sum(), batch.target_mask[row].sum()
        # A mask covers a prefix, and everything after it is PAD.
        assert batch.source_mask[row].tolist() == [i < num_source for i in range(len(source))]
        assert batch.target_mask[row].tolist() == [i < num_target for i in range(len(target))]
        assert set(source[num_source:]) <= {PAD}
        assert set(target[num_target:]) <= {PAD}
        if index < 0:
            assert source[:num_source] == [EOS]
            assert num_target == 0
        else:
            start, end = tokens.source.offsets[index : index + 2]
            assert source[:num_source] == tokens.source.ids[start:end].tolist()
            assert source[num_source - 1] == EOS
            start, end = tokens.target.offsets[index : index + 2]
            assert target[:num_target] == tokens.target.ids[start:end].tolist()
            assert target[num_target - 1] == EOS


def test_both_sides_end_in_eos_and_long_pairs_are_dropped_and_counted():
    pairs = one_reference(["ab", "abc", "x", ""], ["c", "a", "abcc", "b"])
    tokens = tokenize(pairs, LETTERS, LETTERS)
    assert tokens.source.ids.tolist() == [4, 5, EOS, 4, 5, 6, EOS, UNK, EOS, EOS]
    assert tokens.source.lengths.tolist() == [3, 4, 2, 1]
    assert tokens.num_dropped == 0
    short = tokenize(pairs, LETTERS, LETTERS, max_length=3)
    assert short.source.ids.tolist() == [4, 5, EOS, EOS]
    assert short.target.ids.tolist() == [6, EOS, 5, EOS]
    assert short.num_dropped == 2


def test_no_pairs_left_after_filtering_is_refused():
    with pytest.raises(DataError, match="none of 1 pairs is within max_length 2"):
        tokenize(one_reference(["abc"], ["a"]), LETTERS, LETTERS, max_length=2)
    with pytest.raises(DataError, match="empty"):
        tokenize(one_reference([], []), LETTERS, LETTERS)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 5), st.integers(1, 7))
def test_an_epoch_has_every_pair_once_in_the_shapes_of_the_buckets(lengths, num_buckets, size):
    tokens = make_tokens(lengths)
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, num_buckets, size)
    assert 1 <= len(buckets) <= num_buckets
    batches = TrainingBatches(tokens, buckets, size, seed=3)
    seen = []
    for step in range(batches.num_batches):
        batch = batches[step]
        assert (batch.source.shape[1], batch.target.shape[1]) in buckets
        assert len(batch.source) == len(batch.target) == size
        real = batch.target_mask.any(axis=1)
        indices = np.where(real, batch.source[:, 0] - 100, -1)
        check_rows(tokens, indices, batch)
        seen += indices[real].tolist()
    assert sorted(seen) == list(range(len(tokens)))


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 5), st.integers(14, 90))
def test_an_epoch_by_tokens_has_every_pair_once_and_full_batches(lengths, num_buckets, count):
    tokens = make_tokens(lengths)
    source, target = tokens.source.lengths, tokens.target.lengths
    buckets = choose_buckets(source, target, num_buckets, 1, count)
    assert 1 <= len(buckets) <= num_buckets
    batches = TrainingBatches(tokens, buckets, 1, seed=3, tokens_per_batch=count)
    seen, rows_used = [], Counter()
    for step in range(batches.num_batches):
        batch = batches[step]
        shape = BatchShape(len(batch.source), batch.source.shape[1], batch.target.shape[1])
        assert shape in batches.shapes
        assert len(batch.target) == shape.num_rows
        longer = max(shape.source_time, shape.time)
        # As many rows as fit, and not one more.
        assert shape.num_rows * longer <= count < (shape.num_rows + 1) * longer
        real = batch.target_mask.any(axis=1)
        indices = np.where(real, batch.source[:, 0] - 100, -1)
        check_rows(tokens, indices, batch)
        seen += indices[real].tolist()
        rows_used[shape, bool(real.all())] += 1
    assert sorted(seen) == list(range(len(tokens)))
    # Only the last batch of a bucket is filled up.
    assert all(number == 1 for (_, is_full), number in rows_used.items() if not is_full)


def test_batches_by_tokens_depend_only_on_seed_and_step():
    tokens = random_tokens()
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 3, 1, 60)
    first = TrainingBatches(tokens, buckets, 8, seed=1, tokens_per_batch=60)
    served = [first[step] for step in range(2 * first.num_batches)]
    for step in (first.num_batches + 2, 3, 0):
        # The batch size has no effect.
        fresh = TrainingBatches(tokens, buckets, 99, seed=1, tokens_per_batch=60)
        for one, other in zip(fresh[step], served[step], strict=True):
            np.testing.assert_array_equal(one, other)


def test_batches_by_tokens_have_the_same_shapes_for_every_seed():
    tokens = random_tokens(400)
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 4, 1, 60)
    one, other = (
        TrainingBatches(tokens, buckets, 8, seed=seed, tokens_per_batch=60) for seed in (1, 2)
    )
    assert len(one.shapes) == 4
    assert {shape.num_rows for shape in one.shapes} == {4, 6, 8}

    def shapes(batches: TrainingBatches) -> list[tuple[int, ...]]:
        return [batches[step].source.shape for step in range(2 * batches.num_batches)]

    assert shapes(one) == shapes(other)
    epochs = [shapes(one)[: one.num_batches], shapes(one)[one.num_batches :]]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    changes = sum(one != other for one, other in pairwise(epochs[0]))
    assert changes > one.num_batches / 3
    assert order_of(one, 0) != order_of(other, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(1, 3), st.integers(9, 40))
def test_buckets_by_tokens_are_optimal_if_both_sides_have_equal_lengths(lengths, num, count):
    def cells(ends: list[int]) -> int:
        total, begin = 0, 0
        for end in ends:
            pairs = sum(begin < one <= end for one in lengths)
            rows = count // end
            total += -(-pairs // rows) * rows * end
            begin = end
        return total

    array = np.array(lengths)
    buckets = choose_buckets(array, array, num, 7, count)
    ends = sorted(set(lengths))
    best = min(cells(sorted({*some, ends[-1]})) for some in product(ends, repeat=num - 1))
    assert cells([time for _, time in buckets]) == best


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 5), st.integers(1, 7), st.booleans())
def test_evaluation_has_every_pair_once_at_its_index(lengths, num_buckets, size, too_short):
    tokens = make_tokens(lengths)
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, num_buckets)
    if too_short:  # buckets of other data: longer pairs still may not be lost
        buckets = [(3, 4)]
    seen = []
    for indices, batch in evaluation_batches(tokens, buckets, size):
        assert len(indices) == size
        check_rows(tokens, indices, batch)
        seen += indices[indices >= 0].tolist()
    assert sorted(seen) == list(range(len(tokens)))


def test_evaluation_adds_one_bucket_for_longer_pairs():
    tokens = make_tokens([(1, 1), (9, 2), (3, 7), (1, 0)])
    batches = list(evaluation_batches(tokens, [(4, 4)], 2))
    assert [indices.tolist() for indices, _ in batches] == [[0, 3], [1, 2]]
    assert [batch.source.shape + batch.target.shape for _, batch in batches] == [
        (2, 4, 2, 4),
        (2, 11, 2, 9),
    ]


def test_a_batch_depends_only_on_seed_and_step():
    tokens = random_tokens()
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 3)
    first = TrainingBatches(tokens, buckets, 8, seed=1)
    served = [first[step] for step in range(3 * first.num_batches)]
    # A resumed run has a new object, and asks for later steps, in any order.
    for step in (2 * first.num_batches + 1, 3, first.num_batches, 0):
        fresh = TrainingBatches(tokens, buckets, 8, seed=1)
        for one, other in zip(fresh[step], served[step], strict=True):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(first[step], served[step], strict=True):
            np.testing.assert_array_equal(one, other)
    for batch, other in zip(first, served[:3], strict=False):
        np.testing.assert_array_equal(batch.source, other.source)


def order_of(batches: TrainingBatches, epoch: int) -> list[tuple[int, ...]]:
    steps = range(epoch * batches.num_batches, (epoch + 1) * batches.num_batches)
    return [tuple(batches[step].source[:, 0].tolist()) for step in steps]


def test_epochs_and_seeds_differ_in_order_and_in_batch_composition():
    tokens = random_tokens()
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 3)
    batches = TrainingBatches(tokens, buckets, 8, seed=1)
    other = TrainingBatches(tokens, buckets, 8, seed=2)
    orders = [order_of(batches, 0), order_of(batches, 1), order_of(other, 0)]
    for i, j in ((0, 1), (0, 2)):
        assert orders[i] != orders[j]
        together = [{frozenset(rows) for rows in order} for order in (orders[i], orders[j])]
        assert len(together[0] & together[1]) <= 1


def test_the_buckets_are_mixed_over_an_epoch():
    tokens = random_tokens(400)
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 2)
    batches = TrainingBatches(tokens, buckets, 8, seed=0)
    widths = [batches[step].source.shape[1] for step in range(batches.num_batches)]
    changes = sum(one != other for one, other in pairwise(widths))
    assert changes > batches.num_batches / 5


def count_cells(source, target, buckets) -> int:
    cells = 0
    for pair in zip(source, target, strict=True):
        fits = [sum(shape) for shape in buckets if shape[0] >= pair[0] and shape[1] >= pair[1]]
        cells += fits[0]
    return cells


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(1, 3))
def test_buckets_are_optimal_if_both_sides_have_equal_lengths(lengths, num_buckets):
    array = np.array(lengths)
    buckets = choose_buckets(array, array, num_buckets)
    ends = sorted(set(lengths))
    best = min(
        count_cells(array, array, [(end, end) for end in sorted({*some, ends[-1]})])
        for some in product(ends, repeat=num_buckets - 1)
    )
    assert count_cells(array, array, buckets) == best


def test_more_buckets_pad_less_and_the_longest_always_fits():
    generator = np.random.default_rng(0)
    source = generator.poisson(9, 3000) + 1
    target = np.maximum(1, source - generator.integers(-2, 3, 3000))
    cells = []
    for num_buckets in range(1, 7):
        buckets = choose_buckets(source, target, num_buckets)
        assert buckets == sorted(buckets)
        assert buckets[-1] == (source.max(), target.max())
        cells.append(count_cells(source, target, buckets))
    assert cells == sorted(cells, reverse=True)
    assert cells[3] < 0.75 * cells[0]


def test_a_bucket_for_a_few_long_pairs_must_pay_off():
    # Three pairs of length 12 would cost a batch of 8 rows: cheaper than padding 80 to 12.
    source = np.array([5] * 80 + [12] * 3)
    assert choose_buckets(source, source, 2, batch_size=8) == [(5, 5), (12, 12)]
    # With 5 other pairs, which fit into that batch for free, it is not cheaper.
    source = np.array([11] * 5 + [12] * 3)
    assert choose_buckets(source, source, 2, batch_size=8) == [(12, 12)]


def test_many_different_lengths_are_thinned_out():
    source = np.arange(1, 3001)
    buckets = choose_buckets(source, source, 6)
    assert len(buckets) == 6
    assert buckets[-1] == (3000, 3000)


@pytest.mark.parametrize(("num_buckets", "count"), [(0, 3), (2, 0)])
def test_buckets_without_lengths_or_count_are_refused(num_buckets, count):
    with pytest.raises(ValueError, match=f"num_buckets is {num_buckets}, for {count} pairs"):
        choose_buckets(np.ones(count, int), np.ones(count, int), num_buckets)


def test_training_batches_refuse_invalid_arguments():
    tokens = make_tokens([(1, 1), (9, 2)])
    with pytest.raises(ValueError, match="1 pairs are longer than every bucket"):
        TrainingBatches(tokens, [(4, 4)], 2, seed=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        TrainingBatches(tokens, [(14, 14)], 0, seed=0)
    with pytest.raises(IndexError, match="negative"):
        TrainingBatches(tokens, [(14, 14)], 2, seed=0)[-1]


def test_shapes_come_in_the_order_in_which_steps_need_them():
    tokens = random_tokens()
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, 4)
    batches = TrainingBatches(tokens, buckets, 8, seed=1)
    for first in (0, 5, batches.num_batches + 3):
        needed = [batches[first + step].source.shape[1] for step in range(batches.num_batches)]
        shapes = batches.shapes_from(first)
        assert sorted(shapes) == sorted(batches.shapes)
        assert {shape.num_rows for shape in shapes} == {8}
        assert shapes[0].source_time == needed[0]
        if first < batches.num_batches:  # the rest of its epoch comes first
            rest = needed[: batches.num_batches - first]
            assert [shape.source_time for shape in shapes][: len(set(rest))] == list(
                dict.fromkeys(rest)
            )


def test_a_sequence_is_not_cut_to_fit_into_a_batch():
    tokens = make_tokens([(1, 4), (1, 1)])
    with pytest.raises(ValueError, match="a sequence of 6 tokens does not fit into 3"):
        tokens.target.padded(np.array([1, 0]), 3)
    assert tokens.target.padded(np.array([1, -1]), 3)[1].sum() == 3
