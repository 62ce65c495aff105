import json
import os
import resource
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.runs.checkpoints import Checkpoints


class TrainState(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    key: jax.Array


def make_state(step=0, size=5, impl="threefry2x32"):
    params = {
        "encoder": {"kernel": jax.random.normal(jax.random.key(step), (3, size))},
        "bias": jnp.full((size,), 1 / 3, jnp.bfloat16),
        "empty": jnp.zeros((0, 2)),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt_state = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(0.1), optimizer.init(params))
    return TrainState(jnp.int32(step), params, opt_state, jax.random.key(step + 1, impl=impl))


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        for step, score in [(10, 3.0), (20, 1.0), (30, None), (40, 2.0)]:
            checkpoints.save(step, make_state(step), score)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def test_only_the_parameters_are_restored_in_the_requested_dtypes(tmp_path):
    """As for a run that was trained with 64 bits and another random generator."""
    wide = {"kernel": np.linspace(0, 1, 6).reshape(2, 3), "bias": np.ones(3, np.float32)}
    state = TrainState(np.int64(7), wide, {}, jax.random.key(0, impl="rbg"))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state)
    template = jax.eval_shape(
        lambda: {"kernel": jnp.zeros((2, 3), jnp.float32), "bias": jnp.zeros(3, jnp.bfloat16)}
    )
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        step, params = checkpoints.restore(template, part="params")
        other = {"kernel": jax.ShapeDtypeStruct((2, 4), jnp.float32), "bias": template["bias"]}
        with pytest.raises(LabError, match=r"at params\.kernel it has .*2,3"):
            checkpoints.restore(other, part="params")
    assert step == 7
    assert {name: leaf.dtype for name, leaf in params.items()} == {
        "kernel": jnp.float32,
        "bias": jnp.bfloat16,
    }
    np.testing.assert_array_equal(params["kernel"], wide["kernel"].astype(np.float32))


def test_the_shapes_of_a_part_are_read_without_its_values(saved):
    with Checkpoints(saved, read_only=True) as checkpoints:
        step, shapes = checkpoints.shapes("best", "params")
        assert checkpoints.shapes(40)[1].keys() > shapes.keys()
    assert step == 20
    assert shapes == {
        "params.encoder.kernel": ((3, 5), np.dtype(np.float32)),
        "params.bias": ((5,), np.dtype(jnp.bfloat16)),
    }


def test_parameters_may_be_a_single_array(tmp_path):
    table = np.arange(6.0, dtype=np.float32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, TrainState(np.int64(1), table, {}, jax.random.key(0)))
        assert checkpoints.shapes(part="params") == (1, {"params": ((6,), np.dtype(np.float32))})
        _, restored = checkpoints.restore(jax.ShapeDtypeStruct((6,), jnp.float32), part="params")
    np.testing.assert_array_equal(restored, table)


def test_a_checkpoint_of_another_owner_is_rejected(tmp_path):
    owner = {"config": "a", "target vocabulary": "b"}
    with Checkpoints(tmp_path, belongs_to=owner) as checkpoints:
        checkpoints.save(1, make_state())
    for known, others in (
        (owner | {"data": "c"}, ""),
        ({}, ""),
        ({"config": "x", "target vocabulary": "y"}, "config and target vocabulary"),
    ):
        with Checkpoints(tmp_path, read_only=True, belongs_to=known) as checkpoints:
            if others:
                with pytest.raises(LabError, match=f"step 1 in .* with another {others} than"):
                    checkpoints.restore(make_state())
            else:
                assert checkpoints.restore(make_state())[0] == 1


@pytest.mark.parametrize("found", ["{}", '{"custom_metadata": {"score": "x"}}', "[]", "3", "1e400"])
def test_foreign_checkpoint_metadata_are_reported_in_one_line(copied, found):
    (copied / "40" / "_CHECKPOINT_METADATA").write_text(found)
    with pytest.raises(LabError, match=r"40 is damaged; delete that .* 20"):
        Checkpoints(copied)


def test_the_states_of_several_runs_are_saved_side_by_side(tmp_path):
    runs = [Checkpoints(tmp_path / str(number) / "checkpoints") for number in range(3)]
    for step in range(1, 4):
        for run in runs:
            run.save(step, make_state(step))
    for run in runs:
        step, state = run.restore(make_state())
        assert step == 3
        assert_same(state, make_state(3))
        run.close()


def test_a_folder_may_be_named_by_a_path_through_another(tmp_path):
    (tmp_path / "other").mkdir()
    with Checkpoints(tmp_path / "other" / ".." / "run" / "checkpoints") as checkpoints:
        checkpoints.save(6, make_state(6))
    with Checkpoints(tmp_path / "other/../run/checkpoints", read_only=True) as checkpoints:
        assert_same(checkpoints.restore(make_state())[1], make_state(6))


def test_newest_and_best_are_kept(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["20", "40"]
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (40, 20)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_state_is_restored_bit_for_bit(tmp_path, impl):
    state = make_state(7, impl=impl)
    with Checkpoints(tmp_path / "new") as checkpoints:
        checkpoints.save(7, state)
    for template in [make_state(0, impl=impl), jax.eval_shape(lambda: make_state(0, impl=impl))]:
        with Checkpoints(tmp_path / "new") as checkpoints:
            step, restored = checkpoints.restore(template)
        assert step == 7
        assert_same(restored, state)
        assert jax.random.bits(restored.key) == jax.random.bits(state.key)


@pytest.mark.parametrize(("which", "step"), [(None, 40), ("latest", 40), ("best", 20), (20, 20)])
def test_which_one_is_restored(saved, which, step):
    with Checkpoints(saved, read_only=True) as checkpoints:
        chosen, state = checkpoints.restore(make_state(), which)
    assert chosen == step
    assert_same(state, make_state(step))


def test_best_is_the_newest_if_none_was_scored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(1, make_state(1), float("nan"))
        checkpoints.save(2, make_state(2), None)
        assert checkpoints.restore(make_state(), "best")[0] == 2
        assert checkpoints.best_step is None


def test_the_state_is_copied_before_save_returns(tmp_path):
    state = {"w": np.ones(4, np.float32)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        state["w"][:] = 2
        restored = checkpoints.restore(state)[1]
    assert restored["w"].tolist() == [1, 1, 1, 1]


def test_a_step_is_saved_again_for_a_score_or_to_replace_another_runs_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.float32(1)})
        checkpoints.save(1, {"w": jnp.float32(2)})  # the same step of the same run: nothing to do
        assert checkpoints.restore({"w": jnp.float32(0)})[1]["w"] == 1
        checkpoints.save(1, {"w": jnp.float32(3)}, score=0.6)
        checkpoints.wait()
        checkpoints.save(2, {"w": jnp.float32(3)})
        checkpoints.save(
            2, {"w": jnp.float32(3)}, score=0.7
        )  # while the first is still being saved
        checkpoints.wait()
        assert checkpoints.best_step == 1
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, {"w": jnp.float32(4)})
        assert checkpoints.restore({"w": jnp.float32(0)})[1]["w"] == 4


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(LabError, match=f"there is no checkpoint in {tmp_path}"),
    ):
        checkpoints.restore(make_state())
    with pytest.raises(LabError, match=r"there is no checkpoint in .*nowhere"):
        Checkpoints(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_the_error_for_a_missing_step_lists_the_available_steps(saved):
    with (
        Checkpoints(saved, read_only=True) as checkpoints,
        pytest.raises(LabError, match=r"no checkpoint of step 30 .* available steps: 20 and 40"),
    ):
        checkpoints.restore(make_state(), 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: make_state(size=6),
            r"at params\.bias it has bfloat16\[5\], the model has bfloat16\[6\]",
        ),
        (
            lambda state: state._replace(params=state.params | {"more": jnp.zeros(2)}),
            r"at params\.more it has nothing, the model has float32\[2\]",
        ),
        (
            lambda state: state._replace(params={"bias": state.params["bias"]}),
            r"at params\.encoder\.kernel it has float32\[3,5\], the model has nothing",
        ),
        (
            lambda state: state._replace(step=jnp.float32(0)),
            r"at step it has int32\[\], the model has float32\[\]",
        ),
    ],
)
def test_another_architecture_is_reported_with_its_first_leaf(saved, change, message):
    with (
        Checkpoints(saved, read_only=True) as checkpoints,
        pytest.raises(LabError, match=f"step 40 .*another architecture: {message}"),
    ):
        checkpoints.restore(change(make_state()))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d/*"])
def test_the_error_for_a_damaged_checkpoint_names_the_one_to_continue_from(
    copied, capfd, damage, name
):
    damage(next((copied / "40" / "state").glob(name)))
    with (
        Checkpoints(copied) as checkpoints,
        pytest.raises(
            LabError, match=r"40 is damaged; delete .* the checkpoint of step 20"
        ) as told,
    ):
        checkpoints.restore(make_state())
    if name != "_METADATA":  # found before orbax's threads, which would print tracebacks
        assert isinstance(told.value.__cause__, ValueError)
    assert capfd.readouterr().err == ""
    shutil.rmtree(copied / "40")
    with Checkpoints(copied) as checkpoints:
        assert_same(checkpoints.restore(make_state())[1], make_state(20))


def test_a_flipped_value_is_noticed(tmp_path):
    state = {"w": jnp.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)

    def flip(metadata):  # as if the stored data had another checksum
        metadata["custom_metadata"]["crc32"] ^= 1

    change_metadata(tmp_path / "1", flip)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(LabError, match="1 is damaged; there is no other"),
    ):
        checkpoints.restore(state)


def change_metadata(folder, change):
    path = folder / "_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: cut(folder / "_CHECKPOINT_METADATA"),
        lambda folder: (folder / "_CHECKPOINT_METADATA").write_text("[]"),
        lambda folder: change_metadata(folder, lambda every: every.update(custom_metadata=None)),
        lambda folder: change_metadata(
            folder, lambda every: every["custom_metadata"].update(score=[])
        ),
    ],
)
def test_a_broken_score_is_one_line_and_releases_the_folder(copied, change):
    path = copied / "40" / "_CHECKPOINT_METADATA"
    whole = path.read_bytes()
    change(copied / "40")
    with pytest.raises(LabError, match=r"40 is damaged; delete .* the checkpoint of step 20"):
        Checkpoints(copied)
    path.write_bytes(whole)
    with Checkpoints(copied) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (40, 20)


def test_scores_stored_by_earlier_versions_are_found(copied):
    def forget(metadata):
        del metadata["custom_metadata"]["score"]

    for step, score in (("20", 2.5), ("40", 1.5)):
        change_metadata(copied / step, forget)
        (copied / step / "metrics").mkdir()
        (copied / step / "metrics" / "metrics").write_text(f'{{"score": {score}}}')
    with Checkpoints(copied, read_only=True) as checkpoints:
        assert checkpoints.best_step == 40
    (copied / "40" / "metrics" / "metrics").write_text("{}")
    with pytest.raises(LabError, match="40 is damaged"):
        Checkpoints(copied, read_only=True)


@pytest.mark.parametrize(
    "name", ["50.new", "50.new.orbax-checkpoint-tmp", "5.orbax-checkpoint-tmp"]
)
def test_a_killed_save_is_never_taken_for_a_checkpoint(copied, name):
    left = (copied / "40").rename(copied / name)
    with Checkpoints(copied, read_only=True) as checkpoints:
        assert checkpoints.latest_step == 20
    assert left.exists()
    with Checkpoints(copied) as checkpoints:
        assert checkpoints.latest_step == 20
    assert [path.name for path in copied.iterdir()] == ["20"]


@pytest.mark.parametrize("name", ["exp [v2]", "a*b?", "[!x]{1}", "ä \N{SNOWMAN}"])
def test_a_folder_is_not_used_as_a_pattern(tmp_path, name):
    state = make_state(7)
    with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
        checkpoints.save(6, make_state(6))
        checkpoints.save(7, state)
    with Checkpoints(tmp_path / name / "checkpoints", read_only=True) as checkpoints:
        step, restored = checkpoints.restore(make_state())
    assert step == 7
    assert_same(restored, state)


def test_an_incomplete_save_is_no_checkpoint_and_deletes_none(tmp_path, monkeypatch, capfd):
    from orbax.checkpoint import v1 as ocp

    save = ocp.save

    def lose(path, arrays, **options):  # as orbax did when it found nothing to merge
        save(path, arrays, **options)
        (Path(path) / "state" / "manifest.ocdbt").unlink()

    def forget(path, arrays, **options):
        save(path, dict(list(arrays.items())[1:]), **options)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    checkpoints.wait()
    for broken in (lose, forget):
        monkeypatch.setattr(ocp, "save", broken)
        checkpoints.save(2, make_state(2))
        with pytest.raises(LabError, match="cannot write a checkpoint in"):
            checkpoints.wait()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert checkpoints.latest_step == 1
    assert_same(checkpoints.restore(make_state())[1], make_state(1))
    checkpoints.close()
    assert capfd.readouterr().err == ""


def test_a_failed_save_is_reported_once_and_immediately(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    def refuse(path, arrays, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp, "save", refuse)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": jnp.ones(3)})
    saving = checkpoints._saving
    assert saving is not None
    saving.exception()  # it has failed now
    with pytest.raises(LabError, match=r"cannot write a checkpoint in .*: No space left on device"):
        checkpoints.check()
    checkpoints.check()
    assert checkpoints.latest_step is None
    checkpoints.close()


def test_a_full_disk_is_one_line_and_keeps_existing_checkpoints(tmp_path, capfd):
    noise = np.random.default_rng(0)
    states = [{f"w{i}": noise.random(size) for i in range(20)} for size in (10, 20_000)]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, states[0])
    checkpoints.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        checkpoints.save(2, states[1])
        with pytest.raises(LabError, match=f"cannot write a checkpoint in {tmp_path}: File too"):
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    with Checkpoints(tmp_path) as following:  # the lock is free
        assert following.latest_step == 1
    assert capfd.readouterr().err == ""


def test_a_save_leaves_no_descriptor_and_no_thread(tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    counts = []
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(9):
            checkpoints.save(step, {"w": jnp.ones(3)})
            checkpoints.wait()
            counts.append(count())
    assert max(counts[4:]) <= max(counts[:4])


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write .*file"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_one_writer_at_a_time_and_any_reader(copied):
    kept = sorted(path.name for path in copied.iterdir())
    with Checkpoints(copied) as writer:
        left = copied / "50.orbax-checkpoint-tmp"  # as if the writer were saving it
        left.mkdir()
        with pytest.raises(LabError, match=f"is in use by process {os.getpid()}"):
            Checkpoints(copied)
        assert left.exists()
        left.rmdir()
        with Checkpoints(copied, read_only=True) as reader:
            assert reader.latest_step == writer.latest_step == 40
    with Checkpoints(copied) as following:
        assert following.latest_step == 40
    assert sorted(path.name for path in copied.iterdir()) == kept
