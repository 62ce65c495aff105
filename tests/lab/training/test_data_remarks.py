"""What a run reports about its data when it starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.data.pairs import one_reference
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.scores import make_scorer
from s2s_jax.lab.training.data_remarks import check_vocabulary_size, data_remarks
from s2s_jax.lab.training.workbench import RunSpec, Workbench, _Group

TRAIN = one_reference(["ab", "b", "abab", "a"], ["x y", "y", "x y x y", "x"])


def make_task(dev, train=TRAIN, target="whitespace", size=0, **options):
    vocabularies = Vocabularies.train(train, "characters", target, size)
    splits = {"train": train, "dev": dev, "test": one_reference(["ab"], ["z"])}
    return Task(splits, vocabularies, vocabulary_size=size, **options)


def test_unknown_tokens_and_omitted_pairs_are_counted():
    dev = one_reference(["abc", "a", "b"], ["x y", "y  x", "z z x"])
    lines, counts = data_remarks(make_task(dev, max_tokens=3), make_scorer("symbols"))
    assert lines == [
        "data.max_tokens=3 leaves out 1 of 4 training pairs",
        "unknown in dev: 1 of 5 source tokens (20 %) and 2 of 7 target tokens (28.6 %)",
        "unknown in test: 1 of 1 target tokens (100 %)",
        "2 of 3 dev targets do not come back from their token ids, for example number 2:"
        " 'y  x' comes back as 'y x'",
    ]
    assert counts == {
        "training_pairs": 4,
        "left_out": 1,
        "unknown": {
            "dev": {
                "source": {"unknown": 1, "tokens": 5},
                "target": {"unknown": 2, "tokens": 7},
            },
            "test": {
                "source": {"unknown": 0, "tokens": 2},
                "target": {"unknown": 1, "tokens": 1},
            },
        },
        "dev_targets_not_given_back": 2,
    }


def test_nothing_is_reported_for_sound_data():
    dev = one_reference(["ab"], ["x x"])
    lines, counts = data_remarks(
        Task({"train": TRAIN, "dev": dev}, make_task(dev).vocabularies), make_scorer("symbols")
    )
    assert lines == []
    assert (counts["left_out"], counts["dev_targets_not_given_back"]) == (0, 0)


@pytest.mark.parametrize(("target", "said"), [("x x y x", 0), ("x x y", 1)])
def test_dev_targets_that_bleu_cannot_score_are_reported(target, said):
    task = make_task(one_reference(["ab"], [target]))
    lines, _ = data_remarks(task, make_scorer("translation"))
    assert sum(line.startswith("BLEU will be 0") for line in lines) == said


def test_a_too_small_vocabulary_is_reported_and_rejected_if_its_size_was_requested():
    task = make_task(one_reference(["ab"], ["x x"]), target="sentencepiece", size=6000)
    found = len(task.vocabularies.target)
    lines, _ = data_remarks(task, make_scorer("symbols"))
    assert lines[0] == (
        f"the target text of training gives {found} subwords, fewer than data.vocabulary_size=6000"
    )
    check_vocabulary_size(task, {"seed": 1})
    with pytest.raises(
        LabError, match=f"is 6000, and the target text .* set it to {found} or less"
    ):
        check_vocabulary_size(task, {"data.vocabulary_size": 6000})


def test_a_too_small_shared_vocabulary_is_reported_once():
    one = Vocabularies.train(TRAIN, "sentencepiece", "sentencepiece", 6000).target
    splits = {"train": TRAIN, "dev": one_reference(["ab"], ["x x"])}
    task = Task(splits, Vocabularies(one, one), vocabulary_size=6000)
    lines, _ = data_remarks(task, make_scorer("symbols"))
    said = f"the source and target text of training gives {len(one)} subwords"
    assert [line for line in lines if "subwords" in line] == [
        f"{said}, fewer than data.vocabulary_size=6000"
    ]


def test_a_too_large_size_on_the_command_line_is_rejected_before_writing(make_config, tmp_path):
    overrides = {"data.target_vocabulary": "sentencepiece", "data.vocabulary_size": 6000}
    with pytest.raises(LabError, match=r"data\.vocabulary_size is 6000, and the target text"):
        Workbench().train([RunSpec(make_config(**overrides), tmp_path / "run", overrides)])
    assert not (tmp_path / "run").exists()


def test_remarks_are_reported_once_for_all_lanes(
    make_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Group, "_train", lambda *_: None)  # all remarks come before the training
    said: list[list[str]] = [[], []]
    runs = [
        RunSpec(
            make_config(seed=seed, **{"data.max_tokens": 3}), tmp_path / f"{seed}", {}, lines.append
        )
        for seed, lines in enumerate(said)
    ]
    Workbench().train(runs)
    assert said == [["data.max_tokens=3 leaves out 171 of 207 training pairs"], []]


def test_the_result_records_the_counts(finished):
    data = json.loads((finished / "result.json").read_text())["data"]
    assert data["left_out"] == data["dev_targets_not_given_back"] == 0
    assert data["unknown"]["test"]["target"] == {"unknown": 0, "tokens": 48}
