"""One vocabulary for source and target, and a Transformer that shares its embeddings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_jax.lab.config.keys import rename_component
from s2s_jax.lab.experiment import load_run, train_and_evaluate
from s2s_jax.lab.training.warm_start import KEY

MODEL = {
    "model.hidden_size": 8,
    "model.num_heads": 2,
    "model.mlp_size": 8,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "model.share_embeddings": True,
}
SHARED = {"data.target_vocabulary": "characters", "data.shared_vocabulary": True}


@pytest.fixture(scope="module")
def transformer(make_config: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the config of a tiny Transformer that shares its embeddings."""

    def make(**changes: Any) -> Any:
        config = make_config("teacher_forcing", **{"train.num_steps": 4, "eval.every": 4})
        rename_component(config, "model", "transformer")
        config.update_from_flattened_dict(MODEL | changes)
        return config

    return make


@pytest.fixture(scope="module")
def shared(transformer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one vocabulary and one embedding."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    result = train_and_evaluate(transformer(**SHARED), folder, report=lambda line: None)
    assert result["status"] == "finished"
    return folder


def test_source_and_target_have_one_embedding(shared):
    run = load_run(shared)
    files = [(shared / f"{side}_vocabulary.json").read_bytes() for side in ("source", "target")]
    assert files[0] == files[1]
    # The words are of a to f, their spellings of A to F and spaces.
    assert sorted(json.loads(files[0])["tokens"]) == sorted(" abcdefABCDEF")
    tables = {name for name in run.params if "embedding" in name}
    assert tables == {"target_embedding"}
    assert run.params["target_embedding"].shape == (len(run.vocabularies.source), 8)


def test_a_run_of_one_vocabulary_starts_another(shared, transformer, tmp_path):
    config = transformer(**SHARED, **{KEY: str(shared)})
    result = train_and_evaluate(config, tmp_path / "next", report=lambda line: None)
    assert result["status"] == "finished"
    assert load_run(tmp_path / "next").vocabularies == load_run(shared).vocabularies


def test_different_vocabularies_are_not_taken_along_as_one(transformer, tmp_path):
    apart = transformer(**{"model.share_embeddings": False, "data.target_vocabulary": "characters"})
    train_and_evaluate(apart, tmp_path / "apart", report=lambda line: None)
    config = transformer(
        **SHARED, **{KEY: str(tmp_path / "apart"), "model.share_embeddings": False}
    )
    with pytest.raises(ValueError, match=r"source and target have different vocabularies there"):
        train_and_evaluate(config, tmp_path / "next", report=lambda line: None)
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["model.name=transformer", "model.share_embeddings=true"],
            "model.share_embeddings needs one vocabulary for source and target;"
            " set data.shared_vocabulary=True",
        ),
        (
            ["data.shared_vocabulary=true"],
            "data.shared_vocabulary needs one kind for both sides; data.source_vocabulary is"
            " characters and data.target_vocabulary is whitespace",
        ),
    ],
)
def test_two_vocabularies_are_no_shared_one(s2s, experiment_file, tmp_path, flags, message):
    for command in (["train"], ["sweep", "--dry-run"]):
        code, out, err = s2s(
            *command,
            f"--config={experiment_file}",
            f"--workdir={tmp_path}/new",
            *(f"--config.{flag}" for flag in flags),
        )
        assert (code, out, err) == (2, "", f"s2s: {message}\n")
    assert not list(tmp_path.iterdir())
