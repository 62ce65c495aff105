from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.data.path_star import draw_stars, load_path_star, star_pairs

SIZES = {"num_train": 300, "num_dev": 40, "num_test": 50}

Edge = tuple[str, ...]


def read(source: str) -> tuple[list[Edge], str, str]:
    """The edges, the centre and the goal."""
    edges, question = source.split(" / ")
    start, goal = question.split()
    return [tuple(edge.split()) for edge in edges.split(" | ")], start, goal


def graphs(sources: list[str]) -> list[frozenset[Edge]]:
    return [frozenset(read(source)[0]) for source in sources]


@pytest.mark.parametrize(
    ("degree", "path_length", "num_nodes"), [(2, 5, 50), (3, 3, 7), (1, 6, 9), (5, 2, 1000)]
)
def test_every_example_is_a_star_and_a_path_in_it(tmp_path, degree, path_length, num_nodes):
    options = {"degree": degree, "path_length": path_length, "num_nodes": num_nodes}
    splits = load_path_star(str(tmp_path), **SIZES, **options)
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        "train": 300,
        "dev": 40,
        "test": 50,
    }
    for pairs in splits.values():
        assert pairs.references == [(target,) for target in pairs.targets]
        for source, target in zip(pairs.sources, pairs.targets, strict=True):
            edges, start, goal = read(source)
            leaving = Counter(one for one, _ in edges)
            arriving = Counter(other for _, other in edges)
            nodes = leaving.keys() | arriving.keys()
            assert len(nodes) == len(edges) + 1 == degree * (path_length - 1) + 1
            assert {int(one) for one in nodes} <= set(range(num_nodes))
            assert leaving.pop(start) == degree
            assert set(leaving.values()) <= {1}  # only the centre branches
            assert set(arriving.values()) == {1}
            assert start not in arriving
            assert goal not in leaving  # an end
            path = target.split()
            assert (path[0], path[-1], len(path)) == (start, goal, path_length)
            assert set(pairwise(path)) <= set(edges)


def test_every_edge_of_a_graph_is_listed_in_every_order():
    stars = np.tile(np.array([[[3, 4, 7], [3, 9, 2]]]), (4000, 1, 1))
    pairs = star_pairs(np.random.default_rng(0), stars)
    assert set(graphs(pairs.sources)) == {
        frozenset({("3", "4"), ("4", "7"), ("3", "9"), ("9", "2")})
    }
    orders = Counter(source.split(" / ")[0] for source in pairs.sources)
    assert len(orders) == 24
    assert min(orders.values()) > 4000 / 24 / 2
    goals = Counter(pairs.targets)
    assert goals.keys() == {"3 4 7", "3 9 2"}
    assert abs(goals["3 4 7"] - 2000) < 5 * 1000**0.5


def test_names_are_drawn_evenly_and_arms_are_in_one_order():
    stars = draw_stars(np.random.default_rng(1), 6000, 2, 2, 4)
    assert (stars[:, 0, 0] == stars[:, 1, 0]).all()
    assert (stars[:, 0, 1] < stars[:, 1, 1]).all()
    counts = Counter(map(bytes, stars))
    assert len(counts) == 12
    assert max(abs(one - 500) for one in counts.values()) < 5 * 500**0.5


def test_no_graph_occurs_twice(tmp_path):
    # 4 * 3 * 2 / 2 graphs: all are used, so every collision would show.
    sizes = {"num_train": 6, "num_dev": 4, "num_test": 2}
    splits = load_path_star(str(tmp_path), **sizes, degree=2, path_length=2, num_nodes=4)
    found = [graph for pairs in splits.values() for graph in graphs(pairs.sources)]
    assert len(set(found)) == len(found) == 12


def test_the_seed_decides_and_each_split_has_its_own_stream(tmp_path):
    def sources(name: str, **changed: int) -> dict[str, list[str]]:
        splits = load_path_star(str(tmp_path / name), **(SIZES | changed))
        return {split: pairs.sources for split, pairs in splits.items()}

    first, again, other = sources("first"), sources("again"), sources("other", seed=1)
    assert first == again
    more = sources("more", num_train=320, num_dev=20)
    for split in first:
        assert first[split] != other[split]
    assert more["test"] == first["test"]
    assert {len(one.split()) for some in first.values() for one in some} == {26}
    assert graphs(more["train"])[:300] == graphs(first["train"])


def test_the_bits_do_not_change(tmp_path):
    pairs = load_path_star(str(tmp_path), num_train=2, num_dev=1, num_test=1)["train"]
    assert pairs.sources[0] == ("12 43 | 5 9 | 43 5 | 15 29 | 21 7 | 7 15 | 9 16 | 12 21 / 12 29")
    assert pairs.targets[0] == "12 21 7 15 29"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 0}, "degree is 0; it must be at least 1"),
        ({"path_length": 1}, "path_length is 1; it must be at least 2"),
        ({"num_nodes": 1}, "num_nodes is 1; it must be at least 2"),
        ({"num_train": 0}, "num_train is 0; it must be at least 1"),
        ({"num_test": -1}, "num_test is -1; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        (
            {"degree": 10, "path_length": 7},
            "degree 10 and path_length 7 make 61 nodes, but num_nodes is 50;"
            " set degree=8 or path_length=5 or num_nodes=61",
        ),
        (
            {"degree": 60},
            "degree 60 and path_length 5 make 241 nodes, but num_nodes is 50;"
            " set degree=12 or num_nodes=241",
        ),
        (
            {"degree": 2, "path_length": 99},
            "degree 2 and path_length 99 make 197 nodes, but num_nodes is 50;"
            " set path_length=25 or num_nodes=197",
        ),
        (
            {"path_length": 2, "num_nodes": 20},
            "202000 pairs requested, but there are only 3420 different graphs;"
            " set num_train=1420, or raise num_nodes",
        ),
        (
            {"path_length": 2, "num_nodes": 4},
            "202000 pairs requested, but there are only 12 different graphs;"
            " lower num_dev or num_test, or raise num_nodes",
        ),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(tmp_path, options, message):
    with pytest.raises(DataError) as caught:
        load_path_star(str(tmp_path / "tfds"), **options)
    assert str(caught.value) == message
    assert not (tmp_path / "tfds").exists()


def test_what_a_message_proposes_fits(tmp_path):
    for options in (
        {"degree": 8, "path_length": 7},
        {"degree": 10, "path_length": 5},
        {"degree": 10, "path_length": 7, "num_nodes": 61},
        {"degree": 12},
        {"path_length": 25},
        {"degree": 2, "path_length": 2, "num_nodes": 4, "num_train": 10, "num_dev": 1},
    ):
        load_path_star(str(tmp_path), **({"num_train": 5, "num_dev": 1, "num_test": 1} | options))
