"""The TFDS builder for all datasets of pairs that are made here: prepared once, then read.

Importing this module imports tensorflow_datasets, which takes a while; `splits.py` imports it only
when necessary.
"""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from s2s_jax.data.pairs import DataError, Pairs, damaged

_CHUNK = 10_000  # examples per read; one call for a whole split would hold every record twice
_FORMAT = "array_record"


class _LocalInfo(tfds.core.DatasetInfo):
    """TFDS's information about a dataset that exists only on this machine."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS's own method looks online, and leaves a temporary folder."""


class PairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS dataset of {source, targets}, made from splits in memory.

    `targets` holds every accepted target, one per line, the example's own first: a sequence feature
    would double the time to write and to read. The class is not registered with TFDS: `name` is the
    name of the data, and `config` distinguishes this preparation from others of that name.
    """

    def __init__(
        self,
        name: str,
        config: str,
        version: str,
        make_splits: Callable[[], Mapping[str, Pairs]],
        data_dir: str | None,
    ):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  # as ReadOnlyBuilder does
        self.VERSION = tfds.core.Version(version)
        self._make_splits = make_splits
        super().__init__(data_dir=data_dir, config=config)

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig:
        """Accepts any name as a configuration, since fingerprints cannot be listed beforehand."""
        del version
        return tfds.core.BuilderConfig(name=name)

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description="Pairs of source and target texts, with every accepted target.",
            features=tfds.features.FeaturesDict(
                {"source": tfds.features.Text(), "targets": tfds.features.Text()}
            ),
            disable_shuffling=True,  # keep the order of the splits; batches are shuffled later
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {name: self._generate_examples(pairs) for name, pairs in self._make_splits().items()}

    def _generate_examples(self, pairs: Pairs) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = zip(pairs.sources, pairs.targets, pairs.references, strict=True)
        for key, (source, target, references) in enumerate(rows):
            others = (reference for reference in references if reference != target)
            yield key, {"source": source, "targets": "\n".join((target, *others))}


def prepare(
    name: str,
    config: str,
    version: str,
    make_splits: Callable[[], Mapping[str, Pairs]],
    data_dir: str = "",
) -> Path:
    """Prepares a dataset, unless it exists; see `s2s_jax.data.splits.load_or_prepare`.

    Returns:
      Its folder.
    """
    made: dict[str, Pairs] = {}
    try:
        builder = PairsBuilder(name, config, version, lambda: made, data_dir or None)
        if not builder.data_path.exists():
            made.update(make_splits())
            try:
                with quiet():
                    builder.download_and_prepare(file_format=_FORMAT)
            except Exception as error:  # array_record, which writes the records, has its own types
                # If another process has finished first, our rename fails because of its folder.
                if not builder.data_path.exists():
                    raise _cannot_prepare(name, error, str(builder.data_dir)) from error
    except OSError as error:
        raise _cannot_prepare(name, error, data_dir or "TFDS's folder") from error
    return Path(builder.data_path)


def _cannot_prepare(name: str, error: Exception, folder: str) -> DataError:
    reason, where = str(error), folder
    if isinstance(error, OSError):
        reason, where = error.strerror or reason, error.filename or folder
    # array_record puts the system's message in the middle of its own.
    known = (os.strerror(one) for one in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE))
    reason = next((one for one in known if one in reason), reason)
    return DataError(
        f"cannot prepare {name} in {where}: {' '.join(reason.split())[:200]}; "
        "set data.data_dir or TFDS_DATA_DIR to a folder that can be written"
    )


def open_folder(folder: Path) -> tfds.core.DatasetBuilder:
    """A dataset that was prepared in a folder.

    Raises:
      DataError: the folder does not contain a dataset.
    """
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # as for records: a damaged description can cause any error
        raise DataError(damaged(folder, str(error))) from error


def read_split(builder: tfds.core.DatasetBuilder, split: str) -> Pairs:
    """All examples of one split of a `PairsBuilder`, in order."""
    sources: list[str] = []
    references: list[tuple[str, ...]] = []
    for source, targets in read_texts(builder, split, ("source", "targets")):
        sources.append(source)
        references.append(tuple(targets.split("\n")))
    return Pairs(sources, [accepted[0] for accepted in references], references)


def read_texts(
    builder: tfds.core.DatasetBuilder, split: str, features: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """The named text features of every example of a split, in order.

    Raises:
      NotImplementedError: the dataset is in a format without random access.
      DataError: its files are damaged.
    """
    # Parsing the records here is eight times as fast as decoding through the feature tree.
    untyped = cast(Any, builder)  # tfds decorates as_data_source, which hides its signature
    parse = cast(Any, tf_example_pb2).Example.FromString  # a generated module without types
    try:
        data_source = untyped.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        for start in range(0, len(data_source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(data_source)))
            for record in data_source.__getitems__(chunk):
                feature = parse(record).features.feature
                yield tuple(feature[name].bytes_list.value[0].decode() for name in features)
    except NotImplementedError:  # no random access in this format; the caller reports it
        raise
    except Exception as error:  # array_record and protobuf raise many types for a damaged file
        raise DataError(damaged(builder.data_path, str(error))) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides TFDS's banner and progress bars: standard output is for the caller's results."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
