import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax.batch import BOS, EOS, NUM_RESERVED, PAD, UNK
from s2s_jax.data.pairs import DataError
from s2s_jax.data.vocabularies import (
    KINDS,
    SentencePieceVocabulary,
    TokenVocabulary,
    Vocabulary,
    load_vocabulary,
    train_vocabulary,
)

# Unicode's compatibility forms would change the last one, but outputs are scored unchanged.
TEXTS = ["the cat sat on the mat", "a dog sat", "weiß, naïve", "ﬁn № ½"] * 5


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    return {kind: train_vocabulary(kind, TEXTS, 40) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_known_text_round_trips(vocabularies, kind):
    vocabulary = vocabularies[kind]
    for text in TEXTS[:4]:
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert min(ids) >= NUM_RESERVED
        assert max(ids) < len(vocabulary)
        assert vocabulary.count_unknown(text) == 0
    assert vocabulary.encode_batch(TEXTS[:2]) == [vocabulary.encode(text) for text in TEXTS[:2]]


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_stops_at_the_end_and_skips_padding(vocabularies, kind):
    vocabulary = vocabularies[kind]
    ids = vocabulary.encode("the cat")
    assert vocabulary.decode(np.array([BOS, *ids, EOS, *ids, PAD])) == "the cat"
    assert vocabulary.decode(np.array([PAD, PAD])) == ""


def test_unknown_tokens_become_unk_and_are_counted(vocabularies):
    assert vocabularies["characters"].encode("c€t")[1] == UNK
    assert vocabularies["characters"].decode(vocabularies["characters"].encode("c€t")) == "c<unk>t"
    assert vocabularies["whitespace"].decode([UNK]) == "<unk>"
    assert vocabularies["whitespace"].count_unknown("the bird sat there") == 2
    assert UNK in vocabularies["sentencepiece"].encode("c€t")
    assert "<unk>" in vocabularies["sentencepiece"].decode([UNK])
    # Several unknown characters in a row are one piece, but each of them counts.
    assert vocabularies["sentencepiece"].count_unknown("€€ a €") == 3


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_characters_round_trip_any_text_they_were_trained_on(texts):
    vocabulary = train_vocabulary("characters", texts)
    assert [vocabulary.decode(ids) for ids in vocabulary.encode_batch(texts)] == texts


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.from_regex(r"\S{1,4}", fullmatch=True), min_size=1, max_size=8))
def test_whitespace_round_trips_words(words):
    text = " ".join(words)
    vocabulary = train_vocabulary("whitespace", [text])
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="thecaonmdgsi ", max_size=30))
def test_subwords_round_trip_text_of_known_characters(vocabularies, text):
    vocabulary = vocabularies["sentencepiece"]
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


# SentencePiece gives each of these a special meaning.
SPECIAL = ("<unk>", "</s>", "<s>", "<pad>", "\u2581", "\u2585", "\0", "\U0010ff00", "\U0010ff03")


@pytest.fixture(scope="module")
def special() -> Vocabulary:
    """Trained on each special text alone and among words, often enough to get its own pieces."""
    texts = [text for sign in SPECIAL for text in (sign, f"the red{sign} of", f"cat {sign} mat")]
    return train_vocabulary("sentencepiece", [*texts, "< s> unk>"] * 3, 70)


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.sampled_from([*SPECIAL, " the", "red", "<", "s>", "unk>"]), max_size=9))
def test_subwords_round_trip_the_special_symbols_of_sentencepiece(special, parts):
    text = "".join(parts).strip(" ")
    ids = special.encode(text)
    assert special.decode(ids) == text
    assert UNK not in ids
    assert special.count_unknown(text) == 0


def test_an_unknown_special_character_is_one_unknown_symbol(vocabularies):
    vocabulary = vocabularies["sentencepiece"]
    assert vocabulary.count_unknown("cat \u2581\U0010ff02 mat") == 2
    assert vocabulary.decode(vocabulary.encode("cat\u2585 mat")) == "cat<unk> mat"


def test_subwords_of_ordinary_text_equal_those_of_plain_sentencepiece(vocabularies):
    # The same as without escaping.
    assert vocabularies["sentencepiece"].encode_batch(TEXTS[:4]) == [
        [9, 16, 4, 8, 19, 13, 9, 17, 4],
        [15, 19, 11, 30, 8],
        [19, 34, 12, 36, 27, 18, 10, 14],
        [19, 39, 23, 19, 38, 19, 35],
    ]


def test_a_text_too_small_for_the_size_gives_a_smaller_vocabulary(vocabularies):
    vocabulary = train_vocabulary("sentencepiece", TEXTS, 9000)
    assert 40 < len(vocabulary) < 9000
    assert vocabulary.decode(vocabulary.encode(TEXTS[0])) == TEXTS[0]


def test_the_most_frequent_tokens_are_kept_whatever_the_order():
    texts = ["b b a", "c a b", "d"]
    vocabulary = train_vocabulary("whitespace", texts, NUM_RESERVED + 2)
    assert isinstance(vocabulary, TokenVocabulary)
    assert vocabulary.tokens == ("b", "a")
    assert len(vocabulary) == NUM_RESERVED + 2
    everything = [train_vocabulary("whitespace", some) for some in (texts, texts[::-1])]
    tokens = [one.tokens for one in everything if isinstance(one, TokenVocabulary)]
    assert tokens == [("b", "a", "c", "d")] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_vocabulary_is_the_same_and_training_repeats(vocabularies, kind, tmp_path):
    path = tmp_path / "vocabulary.json"
    vocabularies[kind].save(path)
    train_vocabulary(kind, TEXTS, 40).save(tmp_path / "again.json")
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()
    loaded = load_vocabulary(path)
    assert len(loaded) == len(vocabularies[kind])
    assert loaded.encode_batch(TEXTS) == vocabularies[kind].encode_batch(TEXTS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.json", "vocabulary.json"]


def test_a_failed_save_leaves_the_old_file(vocabularies, tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.json"
    vocabularies["whitespace"].save(path)
    before = path.read_bytes()

    def fail(self, target):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space"):
        vocabularies["characters"].save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_with_other_reserved_ids_is_refused(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match=r"pad, bos, eos, unk are \(-1, 1, 2, 0\)"):
        SentencePieceVocabulary(model.getvalue())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("charcters", TEXTS), "did you mean 'characters'?"),
        (("characters", []), "no text to train a characters vocabulary on"),
        (("characters", TEXTS, 4), "size 4 leaves no id"),
        (("sentencepiece", TEXTS), "needs a size"),
        (("sentencepiece", TEXTS, 9), "data.vocabulary_size=9: the characters of the text need at"),
        (
            ("sentencepiece", TEXTS, 10**12),
            "cannot train sentencepiece with data.vocabulary_size=1",
        ),
        (("sentencepiece", [], 100), "no text to train on"),
    ],
)
def test_a_vocabulary_that_cannot_be_trained(arguments, message):
    with pytest.raises(DataError) as caught:
        train_vocabulary(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"kind": "whitespace"}',
        '{"kind": "words", "tokens": []}',
        '{"kind": "characters", "tokens": ["a", "a"]}',
        '{"kind": "sentencepiece", "model": "AAAA"}',
    ],
)
def test_a_file_that_is_not_a_vocabulary(content, tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"vocabulary\.json is not a vocabulary"):
        load_vocabulary(path)


def test_a_vocabulary_file_that_is_missing_or_cut(vocabularies, tmp_path):
    with pytest.raises(DataError, match="cannot read vocabulary"):
        load_vocabulary(tmp_path / "none.json")
    path = tmp_path / "cut.json"
    vocabularies["sentencepiece"].save(path)
    content = json.loads(path.read_text())
    content["model"] = content["model"][: len(content["model"]) // 8 * 4]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is not a vocabulary"):
        load_vocabulary(path)
