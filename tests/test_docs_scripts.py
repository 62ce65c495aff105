"""The script of docs/what_does_the_decoder_pass_itself.md runs; the page shows what it prints."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import Batch, gold_inputs

# Its fixtures train once, not once per worker.
pytestmark = [pytest.mark.xdist_group("docs_scripts"), pytest.mark.slow]

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/what_does_the_decoder_pass_itself.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "docs/scripts"
TABLE = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- /table -->", re.DOTALL)
COUNTS = ("steps", "words", "seeds")


@pytest.fixture(scope="module")
def measures() -> SimpleNamespace:
    """The names of decoder_measures.py, which is not part of the package."""
    path = SCRIPTS / "decoder_measures.py"
    names: dict[str, Any] = {"__name__": "decoder_measures"}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The page's command."""
    (line,) = re.findall(r"^python (docs/scripts/.*)$", PAGE, re.MULTILINE)
    return shlex.split(line)


@pytest.fixture(scope="module")
def quick_run(command, tmp_path_factory) -> tuple[str, Path]:
    """The output of the page's command at its tiny size, and the folder of its figures."""
    folder = tmp_path_factory.mktemp("figures")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, "--quick", "--output", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, folder


def tables(text: str) -> dict[str, list[list[str]]]:
    """The cells of every marked table, headings first, by its name."""
    return {
        name: [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        for name, body in TABLE.findall(text)
    }


def labels(table: list[list[str]]) -> list[list[str]]:
    """The parts that do not depend on sizes: headings, alignment, and the first two text cells."""
    is_text = [not re.match(r"[\d.,-]+( |$)", table[2][place]) for place in range(2)]
    return table[:2] + [
        [cell for cell, kept in zip(row, is_text, strict=False) if kept] for row in table[2:]
    ]


def test_the_script_writes_the_figures_that_the_page_shows(quick_run):
    _, folder = quick_run
    shown = re.findall(r"!\[[^\]]+\]\(images/([\w.]+)\)", PAGE)
    assert len(shown) == len(set(shown)) >= 3
    assert {path.name for path in folder.iterdir()} == set(shown)
    for name in shown:
        for path in (folder / name, ROOT / "docs/images" / name):
            assert path.read_bytes().startswith(b"\x89PNG"), path
            assert path.stat().st_size < 100_000, path


def test_the_page_has_the_tables_that_the_script_prints(quick_run):
    printed, shown = tables(quick_run[0]), tables(PAGE)
    assert printed
    assert set(printed) == set(shown)
    for name, table in printed.items():
        assert labels(shown[name]) == labels(table), name
        assert {len(row) for row in shown[name]} == {len(shown[name][0])}, name


def test_every_measured_number_of_the_page_is_in_a_table():
    """A number with a decimal point in the text is one that a table has."""
    known = set(re.findall(r"\d+\.\d+", " ".join(body for _, body in TABLE.findall(PAGE))))
    text = TABLE.sub("", PAGE)
    text = re.sub(r"```.*?```|\(https?:[^)]*\)|arXiv:[\d.]+", "", text, flags=re.DOTALL)
    found = set(re.findall(r"\d+\.\d+", text))
    assert found
    assert found <= known


def test_every_interval_of_the_page_has_its_count():
    for name, (headings, _, *rows) in tables(PAGE).items():
        places = [place for place, heading in enumerate(headings) if heading in COUNTS]
        assert places, name
        for row in rows:
            for place in places:
                assert int(row[place].replace(",", "")) >= 3, (name, row)


def test_the_intervals_hold_their_value_and_count_steps_and_words(measures):
    above = np.array([[1.0, 5.0], [3.0, 9.0], [8.0, 8.0]])
    below = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    where = np.array([[True, True], [True, False], [False, False]])
    found = measures.bootstrap_ratio(above, below, where)
    assert found.value == pytest.approx((1 + 5 + 3) / (1 + 1 + 2))
    assert (found.num_steps, found.num_words) == (3, 2)
    # Two words: a resample has the first twice, the second twice, or both.
    assert (found.low, found.high) == pytest.approx((3 / 2, 6 / 2))
    assert str(measures.bootstrap_ratio(above, below, where & False)) == "-"


@pytest.fixture(scope="module")
def measured(measures, make_rnn, batch) -> SimpleNamespace:
    """A tiny model whose choices vary, and all its measurements on four words."""
    model, params = make_rnn(cell="gru")
    words = Batch(*map(jnp.asarray, batch))

    def everything(params, words):
        return (
            measures.make_predict(model)(params, words),
            measures.make_states(model)(params, words),
            measures.make_gradients(model)(params, words),
        )

    found = jax.device_get(jax.jit(everything)(params, words))
    return SimpleNamespace(
        model=model, params=params, words=words,
        predicted=found[0], states=found[1], gradients=found[2],
    )  # fmt: skip


def test_up_to_the_first_wrong_token_nothing_differs(measures, measured):
    wrong = measured.states["wrong"]
    mask = np.asarray(measured.words.target_mask)
    before = mask & (np.cumsum(wrong, 1) == 0)
    assert wrong.any()
    assert (before.sum(1) > 0).all()
    np.testing.assert_allclose(measured.states["distance"][before], 0.0, atol=1e-6)
    np.testing.assert_allclose(measured.gradients["cosine"][before], 1.0, atol=1e-5)
    assert (measured.states["distance"][wrong] > 1e-3).all()
    assert (measured.gradients["cosine"][wrong] < 1 - 1e-4).all()
    scores = measures.score(measured.predicted, measured.words)
    assert scores.num_differing == 0
    assert scores.num_compared == before.sum()


def test_scores_are_those_of_hand_counted_words(measures):
    target = np.array([[5, 6, 7, 2], [8, 2, 0, 0]])
    words = Batch(target, target > 0, target, target > 0)
    gold_fed = np.array([[5, 9, 7, 9], [8, 2, 4, 4]])
    own_fed = np.array([[5, 9, 2, 0], [8, 2, 0, 0]])
    scores = measures.score({"gold": gold_fed, "own": own_fed}, words)
    assert scores.token_accuracy == pytest.approx((4 / 6, 3 / 6))
    assert scores.exact_match == (0.5, 0.5)
    assert scores.after_error == pytest.approx((1 / 2, 0.0))
    assert (scores.num_compared, scores.num_differing) == (4, 0)
    np.testing.assert_allclose(scores.by_position[1], [1.0, 0.5, 0.0, 0.0])


def test_a_steps_gradient_is_that_of_its_own_loss(measured):
    """Against jax.grad of one step's loss."""
    model, words, found = measured.model, measured.words, measured.gradients
    row, step = 0, 2

    def loss(params):
        memory = model.encode(params, words.source, words.source_mask, None)
        logits = model.decode_sequence(params, memory, gold_inputs(words.target))
        return -jax.nn.log_softmax(logits[row, step])[words.target[row, step]]

    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(measured.params))
    length = np.sqrt(sum(float((leaf**2).sum()) for leaf in leaves))
    assert found["gold"][row, step] == pytest.approx(length, rel=1e-4)
    outside = ~np.asarray(words.target_mask)
    assert (found["gold"][outside] == 0).all()
    assert (found["own"][outside] == 0).all()


def test_sums_agree_fully_with_themselves_and_not_with_noise(measures):
    generator = np.random.default_rng(0)
    common = np.ones((40, 200))
    gold = common + 3 * generator.normal(size=common.shape)
    same, *halves = measures.compare_sums(gold, gold)
    assert same.value == pytest.approx(1.0)
    assert halves[0] == halves[1] == halves[2]
    assert 0.3 < halves[0].low < halves[0].value < halves[0].high < 1
    found = measures.compare_sums(gold, generator.normal(size=common.shape))
    assert found[2] == halves[0]
    for interval in (found[0], found[1], found[3]):
        assert abs(interval.value) < 0.3
    gold[:10] = 0.0  # words without an error do not count
    assert measures.compare_sums(gold, gold)[0].num_words == 30
