"""The table and the picture of an evaluation."""

import io

import numpy as np
from PIL import Image

from s2s_jax.lab.pictures import attention_picture, examples_table


def test_a_table_row_an_example_with_its_first_reference():
    table = examples_table(
        ["ab", "c|d", ""], [("x", "y"), ("z",), ("w",)], ["y", "z z", ""]
    ).splitlines()
    assert table[2:] == [
        "| ✓ | `ab` | `x` | `y` |",
        "| ✗ | `c\\|d` | `z` | `z z` |",
        "| ✗ |  | `w` |  |",
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
