"""A generated task that teacher forcing fails on: the path from a star's centre to one of its ends.

Bachmann & Nagarajan 2024 (arXiv:2403.06963). Several arms leave one node, and the goal is the end
of one of them. The first step is the only choice, and only the goal says which arm is right. Every
later step follows from the one before, so with gold prefixes a model learns to look up the
successor of the token that it is fed, and never has to find out where an arm ends.
"""

import math

import numpy as np

from s2s_jax.data.pairs import DataError, Pairs, one_reference
from s2s_jax.data.splits import PreparedSplits, load_or_prepare

VERSION = "1.0.0"

BETWEEN_EDGES, BEFORE_QUESTION = "|", "/"
"""The tokens of a source that are not names of nodes."""

_DRAWN_AT_ONCE = 2**22  # names that are shuffled together; another value gives other graphs
_LEAST_DRAWN = 1024  # so that few missing graphs do not take many rounds


def load_path_star(
    data_dir: str = "",
    *,
    degree: int = 2,
    path_length: int = 5,
    num_nodes: int = 50,
    num_train: int = 200_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> PreparedSplits:
    """Paths in star graphs: "9 2 | 3 9 | 4 7 | 3 4 / 3 7" -> "3 4 7"; for whitespace vocabularies.

        number of nodes = degree * (path_length - 1) + 1,   number of edges = the same minus 1

    A source lists the edges, each from the centre outwards, in random order; after the slash come
    the centre and the goal, the end of a randomly chosen arm. The target is the path from the
    centre to the goal, both included. Names are drawn without replacement from 0 ... num_nodes - 1.

    A model that has not found out which arm ends at the goal is right in 1 / degree of its first
    steps, and so in 1 / degree of its paths.

    No two examples, in the same split or in different ones, have the same graph: the same edges,
    whatever the goal and the order.

    Args:
      data_dir: TFDS's folder; "" means its default.
      degree: arms of a star, at least 1.
      path_length: nodes of the path, counted with the centre and the goal, at least 2; an arm has
        one node fewer beyond the centre.
      num_nodes: different names of nodes, at least as many as the nodes of a graph.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: test pairs.
      seed: of the generation. Each split has its own stream of random numbers.

    Raises:
      DataError: an option is out of range, or there are fewer different graphs than pairs.
    """
    sizes = {"train": num_train, "dev": num_dev, "test": num_test}
    _check_options(degree, path_length, num_nodes, sizes, seed)

    def make_splits() -> dict[str, Pairs]:
        streams = np.random.SeedSequence(seed).spawn(len(sizes))
        generators = {
            split: np.random.default_rng(one) for split, one in zip(sizes, streams, strict=True)
        }
        made: dict[str, Pairs] = {}
        taken = np.empty((0, degree, path_length), np.int32)
        for split in ("test", "dev", "train"):  # the larger splits make way for the smaller ones
            generator = generators[split]
            stars = _distinct_stars(generator, sizes[split], degree, path_length, num_nodes, taken)
            taken = np.concatenate([taken, stars])
            made[split] = star_pairs(generator, stars)
        return {split: made[split] for split in sizes}

    config = "-".join(map(str, (degree, path_length, num_nodes, *sizes.values(), seed)))
    return load_or_prepare("path_star", config, VERSION, make_splits, data_dir)


def draw_stars(
    generator: np.random.Generator, count: int, degree: int, path_length: int, num_nodes: int
) -> np.ndarray:
    """Draws star graphs whose nodes have different names, each such graph being equally likely.

    Args:
      generator: of the random numbers.
      count: number of graphs.
      degree: arms of a star.
      path_length: nodes of an arm, counted with the centre.
      num_nodes: names to choose from, at least degree * (path_length - 1) + 1.

    Returns:
      [count, degree, path_length] int32: the nodes of each arm, from the centre outwards. The arms
      are sorted by their second node, so equal graphs are equal arrays.

    Example:
      >>> draw_stars(np.random.default_rng(0), 1, degree=2, path_length=3, num_nodes=5).tolist()
      [[[2, 0, 1], [2, 4, 3]]]
    """
    num_drawn = degree * (path_length - 1) + 1
    rows = max(1, _DRAWN_AT_ONCE // num_nodes)
    names = np.arange(num_nodes, dtype=np.int32)
    chunks = [
        generator.permuted(np.tile(names, (min(rows, count - start), 1)), axis=1)[:, :num_drawn]
        for start in range(0, count, rows)
    ]
    drawn = np.concatenate(chunks)
    arms = drawn[:, 1:].reshape(count, degree, path_length - 1)
    arms = np.take_along_axis(arms, np.argsort(arms[:, :, 0], axis=1)[:, :, None], axis=1)
    centres = np.broadcast_to(drawn[:, :1, None], (count, degree, 1))
    return np.concatenate([centres, arms], axis=2)


def star_pairs(generator: np.random.Generator, stars: np.ndarray) -> Pairs:
    """Writes star graphs as pairs of texts, with their edges shuffled and a goal drawn for each.

    Args:
      generator: of the random numbers.
      stars: [count, degree, path_length], see `draw_stars`.

    Example:
      >>> pairs = star_pairs(np.random.default_rng(0), np.array([[[3, 4, 7], [3, 9, 2]]]))
      >>> pairs.sources, pairs.targets
      (['9 2 | 3 9 | 4 7 | 3 4 / 3 7'], ['3 4 7'])
    """
    count, degree, _ = stars.shape
    edges = np.stack([stars[:, :, :-1], stars[:, :, 1:]], axis=-1).reshape(count, -1, 2)
    order = np.argsort(generator.random(edges.shape[:2]), axis=1)
    edges = np.take_along_axis(edges, order[:, :, None], axis=1)
    paths = stars[np.arange(count), generator.integers(degree, size=count)]
    names = np.array([*map(str, range(stars.max() + 1)), BEFORE_QUESTION, BETWEEN_EDGES], object)
    marks = np.full((*edges.shape[:2], 1), -1)  # places in `names`, from its end
    marks[:, -1] = -2
    lists = np.concatenate([edges, marks], axis=2).reshape(count, -1)
    sources = np.concatenate([lists, paths[:, [0, -1]]], axis=1)
    return one_reference(*([" ".join(row) for row in names[some]] for some in (sources, paths)))


def _distinct_stars(
    generator: np.random.Generator,
    count: int,
    degree: int,
    path_length: int,
    num_nodes: int,
    taken: np.ndarray,
) -> np.ndarray:
    """The first stars of a generator that differ from each other and from those already taken."""
    stars, num_taken = taken, len(taken)
    while len(stars) < num_taken + count:
        more = draw_stars(generator, max(count, _LEAST_DRAWN), degree, path_length, num_nodes)
        stars = np.concatenate([stars, more])
        keys = stars.reshape(len(stars), -1).view(f"V{stars[0].nbytes}")[:, 0]
        stars = stars[np.sort(np.unique(keys, return_index=True)[1])]
    return stars[num_taken : num_taken + count]


def _check_options(
    degree: int, path_length: int, num_nodes: int, sizes: dict[str, int], seed: int
) -> None:
    for name, value, lowest in (
        ("degree", degree, 1),
        ("path_length", path_length, 2),
        ("num_nodes", num_nodes, 2),
        *((f"num_{split}", size, 1) for split, size in sizes.items()),
        ("seed", seed, 0),
    ):
        if value < lowest:
            raise DataError(f"{name} is {value}; it must be at least {lowest}")
    needed = degree * (path_length - 1) + 1
    if needed > num_nodes:
        fitting = [
            ("degree", (num_nodes - 1) // (path_length - 1), 1),
            ("path_length", (num_nodes - 1) // degree + 1, 2),
            ("num_nodes", needed, 2),
        ]
        ways = [f"{name}={value}" for name, value, lowest in fitting if value >= lowest]
        raise DataError(
            f"degree {degree} and path_length {path_length} make {needed} nodes, but num_nodes is"
            f" {num_nodes}; set {' or '.join(ways)}"
        )
    available = math.perm(num_nodes, needed) // math.factorial(degree)
    wanted = sum(sizes.values())
    if wanted > available:
        left = available - sizes["dev"] - sizes["test"]
        remedy = f"set num_train={left}" if left > 0 else "lower num_dev or num_test"
        raise DataError(
            f"{wanted} pairs requested, but there are only {available} different graphs; {remedy},"
            " or raise num_nodes"
        )
