"""Datasets by name: their options in a config's data section, and their splits."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from s2s_jax.data.cmudict import load_cmudict
from s2s_jax.data.markov import load_hmm, load_markov
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.parallel_text import load_parallel_text, load_tsv
from s2s_jax.data.path_star import load_path_star
from s2s_jax.data.synthetic import load_addition, load_copy, load_reverse
from s2s_jax.data.translation import load_tfds_translation
from s2s_jax.names import did_you_mean

Loader = Callable[..., Mapping[str, Pairs]]

LOADERS: dict[str, Loader] = {
    "addition": load_addition,
    "cmudict": load_cmudict,
    "copy": load_copy,
    "hmm": load_hmm,
    "markov": load_markov,
    "parallel_text": load_parallel_text,
    "path_star": load_path_star,
    "reverse": load_reverse,
    "tfds_translation": load_tfds_translation,
    "tsv": load_tsv,
}
"""Loader of each dataset: called with data_dir and, by keyword, the options of its signature."""


def dataset_options(name: str) -> dict[str, Any]:
    """The options of a dataset with their defaults.

    Raises:
      DataError: there is no dataset of that name.

    Example:
      >>> dataset_options("cmudict")
      {'stress': False}
    """
    parameters = inspect.signature(_loader(name)).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def load_splits(
    name: str, options: Mapping[str, Any] | None = None, data_dir: str = ""
) -> Mapping[str, Pairs]:
    """The splits of a dataset: train, dev, usually test, and test_long for some generated tasks.

    The first call prepares the data below data_dir, later ones use what is there; a split is read
    when it is first needed.

    Args:
      name: see `LOADERS`.
      options: of the dataset, see `dataset_options`; those that are left out keep their default.
      data_dir: TFDS's folder; "" means TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      DataError: there is no dataset or option of that name, an option has the wrong type, or the
        data cannot be used.
    """
    known = dataset_options(name)
    for key, value in (options or {}).items():
        if key not in known:
            raise DataError(f"dataset {name} has no option {key!r}; {did_you_mean(key, known)}")
        if type(value) is not type(known[key]):
            expected = type(known[key]).__name__
            raise DataError(f"option {key} of dataset {name} is {value!r}, not of type {expected}")
    return _loader(name)(data_dir, **(options or {}))


def _loader(name: str) -> Loader:
    if name not in LOADERS:
        raise DataError(f"data.name is {name!r}; {did_you_mean(name, LOADERS)}")
    return LOADERS[name]
