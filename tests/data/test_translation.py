import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
import tensorflow_datasets.translate
from tensorflow_datasets.core import naming
from tensorflow_datasets.core.splits import SplitDict
from tensorflow_datasets.testing.mocking import PickableDataSourceMock

from s2s_jax.data.pairs import DataError
from s2s_jax.data.translation import load_tfds_translation

NAME = "wmt14_translate/de-en"
TEXTS = {
    "train": [("ein Hund", "a dog"), ("eine Katze", "a cat")],
    "validation": [("weiß", "white")],
    "test": [("zwei", "two")],
}


def prepare(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a small wmt14_translate, without its download."""

    def generators(self, dl_manager):
        return {
            split: ((key, {"de": de, "en": en}) for key, (de, en) in enumerate(texts))
            for split, texts in TEXTS.items()
        }

    with monkeypatch.context() as patch:
        builder = tensorflow_datasets.translate.Wmt14Translate
        patch.setattr(builder, "_split_generators", generators)
        tfds.builder(NAME, data_dir=data_dir).download_and_prepare(file_format="array_record")


class DataSourceMock(PickableDataSourceMock):
    """TFDS's mock with a __getitems__ that works.

    Its own is set as an attribute of an instance and so gets no self.
    """

    __getitems__ = property(
        lambda self: lambda keys: [self[key] for key in keys], lambda self, value: None
    )


def write_info(data_dir: Path, file_format: str) -> None:
    """Writes the description of a prepared wmt14_translate, without its records."""
    builder = tfds.builder(NAME, data_dir=data_dir)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[7],
            num_bytes=1,
            filename_template=naming.ShardedFileTemplate(
                data_dir=builder.data_path,
                dataset_name=builder.name,
                split=split,
                filetype_suffix=file_format,
            ),
        )
        for split in TEXTS
    ]
    builder.info.set_splits(SplitDict(infos))
    builder.info.set_file_format(file_format, override=True)
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)


def test_tfds_mock(tmp_path):
    write_info(tmp_path, "array_record")
    with tfds.testing.mock_data(
        num_examples=7, data_dir=str(tmp_path), mock_array_record_data_source=DataSourceMock()
    ):
        splits = dict(load_tfds_translation(str(tmp_path), tfds_name=NAME))
    assert list(splits) == ["train", "dev", "test"]
    assert [len(pairs) for pairs in splits.values()] == [7, 7, 7]
    assert all(type(text) is str for text in splits["train"].sources + splits["train"].targets)
    assert splits["train"].sources != splits["train"].targets


def test_records_of_a_prepared_dataset(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch)
    splits = load_tfds_translation(str(tmp_path), tfds_name=NAME)
    assert sorted(zip(splits["train"].sources, splits["train"].targets, strict=True)) == [
        ("ein Hund", "a dog"),
        ("eine Katze", "a cat"),
    ]
    assert splits["dev"].sources == ["weiß"]
    assert splits["test"].references == [("two",)]
    other = load_tfds_translation(
        str(tmp_path), tfds_name=NAME, source_language="en", target_language="de"
    )
    assert other["dev"].sources == ["white"]
    assert other["dev"].targets == ["weiß"]
    assert other.derived != splits.derived


def test_prepared_records_have_fingerprints_of_their_content_and_are_read_once(
    tmp_path, monkeypatch
):
    prepare(tmp_path, monkeypatch)

    def load():
        return load_tfds_translation(str(tmp_path), tfds_name=NAME).fingerprints

    before = load()
    assert list(before) == ["train", "dev", "test"]
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert load() == before
    monkeypatch.setattr(hashlib, "file_digest", digest)
    (records,) = tmp_path.rglob("*-test.array_record*")
    records.write_bytes(records.read_bytes() + b"x")
    after = load()
    assert {name for name in before if before[name] != after[name]} == {"test"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tfds_name": "wmt14_translat/de-en"}, ["did you mean 'wmt14_translate'?"]),
        ({"tfds_name": "wmt14_translate/de-enn"}, ["'de-enn'", "did you mean 'de-en'?"]),
        ({"tfds_name": "wmt14_translate"}, ["no configuration ''", "cs-en, de-en"]),
        ({"tfds_name": "wmt14_translate/de-en:9.9.9"}, ["9.9.9"]),
        ({"tfds_name": ""}, ["no dataset ''"]),
        ({"tfds_name": "a:b/c"}, ["no dataset 'a:b'"]),
        ({"tfds_name": "mnist"}, ["mnist is not a translation dataset: it has image, label"]),
        ({"source_language": "en"}, ["are both en"]),
        ({"source_language": "dee"}, ["no text 'dee'", "did you mean 'de'?"]),
        (
            {},
            [
                f"{NAME} is not prepared in ",
                f"tfds build {NAME} --file_format=array_record --data_dir=",
                "wmt14_translate/de-en/1.0.0 here",
            ],
        ),
    ],
)
def test_missing_datasets_and_languages_are_refused(tmp_path, options, words):
    with pytest.raises(DataError) as caught:
        load_tfds_translation(str(tmp_path / "tfds"), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "tfds").exists()


def test_a_format_without_random_access(tmp_path):
    write_info(tmp_path, "tfrecord")
    with pytest.raises(DataError, match="is not in the array_record format: run 'tfds build"):
        load_tfds_translation(str(tmp_path), tfds_name=NAME)["train"]


def test_missing_records(tmp_path):
    write_info(tmp_path, "array_record")
    with pytest.raises(DataError, match=r"cannot read .*; delete the folder"):
        load_tfds_translation(str(tmp_path), tfds_name=NAME)["train"]


def test_a_dataset_name_is_found_without_importing_its_module_first(tmp_path):
    code = (
        "import sys; from s2s_jax.data.catalog import load_splits\n"
        "try: load_splits('tfds_translation', {}, sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print('tensorflow' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    assert "is not prepared in" in output
    assert output.splitlines()[-1] == "False"
