"""Any translation dataset of TFDS by its name, such as wmt14_translate/de-en."""

from pathlib import Path
from typing import Any

from s2s_jax.data.files import files_fingerprint
from s2s_jax.data.pairs import DataError, Pairs, damaged, one_reference
from s2s_jax.data.paths import data_folder
from s2s_jax.data.splits import PreparedSplits
from s2s_jax.names import did_you_mean

_SPLITS = {"validation": "dev", "valid": "dev"}  # TFDS's name of a split to ours


def load_tfds_translation(
    data_dir: str = "",
    *,
    tfds_name: str = "wmt14_translate/de-en",
    source_language: str = "",
    target_language: str = "",
) -> PreparedSplits:
    """A translation dataset that has already been prepared; nothing is downloaded.

    Args:
      data_dir: TFDS's folder; "" means its default.
      tfds_name: name/config as in TFDS's catalogue, with :version if an older one is meant.
      source_language: key of the source text; "" means the first of the dataset's own pair.
      target_language: key of the target text; "" means the second.

    Raises:
      DataError: there is no such dataset, configuration or language; it is not prepared in
        data_dir, or is in a format that only TensorFlow can read.
    """
    from s2s_jax.data.builders import read_texts

    builder = _builder(tfds_name, data_dir)
    languages = _languages(builder, tfds_name, source_language, target_language)
    command = (
        f"tfds build {tfds_name} --file_format=array_record --data_dir={builder.data_dir_root}"
    )
    if not builder.data_path.exists():
        raise DataError(
            f"{tfds_name} is not prepared in {builder.data_dir_root}: run '{command}' where "
            f"TensorFlow is installed, and copy the folder {builder.data_path} here"
        )
    theirs = {_SPLITS.get(name, name): name for name in map(str, builder.info.splits)}

    def read(split: str) -> Pairs:
        try:
            rows = list(read_texts(builder, theirs[split], languages))
        except NotImplementedError as error:
            raise DataError(
                f"{builder.data_path} is not in the array_record format: run '{command}' where "
                "TensorFlow is installed, into another folder"
            ) from error
        # Stripped, as `s2s decode` strips its lines.
        return one_reference([row[0].strip() for row in rows], [row[1].strip() for row in rows])

    # The number is changed whenever texts are read differently, so that old caches are not used.
    derived = Path(builder.data_path) / f"tokens-{'-'.join(languages)}-2"

    def fingerprints() -> dict[str, str]:
        try:
            return {
                name: files_fingerprint(
                    [Path(path) for path in builder.info.splits[split].filepaths], derived
                )
                for name, split in theirs.items()
            }
        except OSError as error:
            raise DataError(damaged(builder.data_path, str(error))) from error

    return PreparedSplits(derived, lambda: theirs, read, fingerprints)


def _builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers the builders of this folder

    dataset, _, rest = name.partition("/")
    try:
        cls: Any = tfds.builder_cls(dataset.partition(":")[0])
    except ValueError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise DataError(
            f"TFDS has no dataset {dataset!r}; {did_you_mean(dataset, known)}"
        ) from error
    config = rest.partition(":")[0]
    if cls.builder_configs and config not in cls.builder_configs:
        hint = did_you_mean(config, cls.builder_configs)
        raise DataError(f"TFDS's {dataset} has no configuration {config!r}; {hint}")
    try:
        return tfds.builder(name, data_dir=str(data_folder(data_dir)))
    except (ValueError, AssertionError, RuntimeError) as error:
        raise DataError(f"TFDS cannot make {name}: {error}") from error


def _languages(builder: Any, name: str, source: str, target: str) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features = builder.info.features or {}
    texts = [key for key in features if isinstance(features[key], tfds.features.Text)]
    default = builder.info.supervised_keys or tuple(texts[:2])
    if len(texts) < 2 or len(default) != 2:
        raise DataError(f"{name} is not a translation dataset: it has {', '.join(features)}")
    languages = source or default[0], target or default[1]
    for language in languages:
        if language not in texts:
            raise DataError(f"{name} has no text {language!r}; {did_you_mean(language, texts)}")
    if languages[0] == languages[1]:
        raise DataError(f"source and target of {name} are both {languages[0]}: set both languages")
    return languages
