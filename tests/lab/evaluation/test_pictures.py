"""The table of examples and the attention image of an evaluation."""

import io

import numpy as np
import pytest
from PIL import Image

from s2s_jax.lab.base import figures
from s2s_jax.lab.evaluation.pictures import attention_picture, examples_table


def test_one_table_row_per_example_with_its_first_reference():
    table = examples_table(
        ["ab", "c|d", "", "a`b"],
        [("x", "y"), ("z",), ("w",), ("``",)],
        ["y", "z z", "", "a\nb\ud800"],
    ).splitlines()
    assert table[2:] == [
        "| ✓ | `ab` | `x` | `y` |",
        "| ✗ | `c\\|d` | `z` | `z z` |",
        "| ✗ |  | `w` |  |",
        "| ✗ | ``a`b`` | ``` `` ``` | `a\\nb\\ud800` |",
    ]


def test_a_picture_grows_with_what_it_shows():
    def size(rows, columns):
        weights = np.full((rows, columns), 1 / columns, np.float32)
        png = attention_picture(weights, ["s"] * columns, ["t"] * rows)
        assert png.startswith(b"\x89PNG")
        return Image.open(io.BytesIO(png)).size

    small, large = size(1, 1), size(12, 20)
    assert large[0] > small[0]
    assert large[1] > small[1]


def test_a_picture_shows_the_weights():
    def brightness(weights):
        png = attention_picture(np.asarray(weights, np.float32), "ab", "xy")
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"), float)
        height, width = pixels.shape
        # The heat map is in the middle of the left part.
        rows, columns = np.nonzero(pixels != 255)
        return pixels, (height, width), (rows, columns)

    diagonal, _, _ = brightness([[1, 0], [0, 1]])
    other, _, _ = brightness([[0, 1], [1, 0]])
    assert diagonal.shape == other.shape
    assert (diagonal != other).mean() > 0.02


@pytest.mark.parametrize(
    "token",
    [
        "$$",
        "$^$",
        r"$\frac$",
        "日本語",
        "ไทย",
        "😀",
        "a\nb",
        "\0",
        "\udc80",
        "",
        "long" * 500,
        "日" * 500,
    ],
)
def test_every_token_is_a_label(token):
    png = attention_picture(np.ones((1, 1)), [token], [token])
    assert max(Image.open(io.BytesIO(png)).size) < 600


def test_a_formula_is_shown_literally():
    pictures = {
        attention_picture(np.ones((1, 1)), [token], ["t"]) for token in ("$x_1$", "$x_2$", "x_1")
    }
    assert len(pictures) == 3


def test_a_picture_has_a_maximum_size_and_says_what_is_left_out(monkeypatch):
    seen = []

    def keep(figure, **_):
        seen.append(figure)
        return b""

    monkeypatch.setattr(figures, "to_png", keep)
    weights = np.arange(410 * 292, dtype=float).reshape(410, 292)
    attention_picture(weights, [f"s{i}" for i in range(292)], [f"t{i}" for i in range(410)])
    attention_picture(weights[:60, :60], ["s"] * 60, ["t"] * 60)
    cut, whole = (figure.axes[0] for figure in seen)
    assert cut.get_title().splitlines() == [
        "the first 60 of 410 output tokens",
        "the first 60 of 292 source tokens",
    ]
    np.testing.assert_array_equal(cut.images[0].get_array(), weights[:60, :60])
    assert [label.get_text() for label in cut.get_yticklabels()] == [f"t{i}" for i in range(60)]
    assert [label.get_text() for label in cut.get_xticklabels()] == [f"s{i}" for i in range(60)]
    assert whole.get_title() == ""
    assert max(seen[0].get_size_inches()) < 24
