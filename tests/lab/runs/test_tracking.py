# TensorBoard's message classes are created at import, so a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import types_pb2
from tensorboard.data import grpc_provider, server_ingester
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
)
from tensorboard.util import grpc_util

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG, Metric
from s2s_jax.lab.runs.tracking import Tracker


def log(tracker, first, last):
    tracker.hparams({"schedule": "linear"}, "linear")
    for step in range(first, last + 1):
        tracker.scalars(step, {"train/loss": 1 / step, "train/gold_share": float("nan")})
        if step % 2 == 0:
            tracker.scalars(step, {"eval/own/wer": 10.0 * step})
            tracker.text(step, "examples", f"step *{step}*")
            tracker.image(step, "attention", np.full((2, 3, 3), step, np.uint8))


def points(folder):
    """What TensorBoard's Python backend shows: tag -> [(step, value)]."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, value_of(event.tensor_proto)) for event in accumulator.Tensors(tag)]
        for tag in sorted(accumulator.Tags()["tensors"])
    }


def value_of(proto):
    if proto.dtype == types_pb2.DT_STRING:
        return list(proto.string_val)
    return list(proto.float_val)


def test_a_call_is_a_line_and_its_points(tmp_path):
    with Tracker(tmp_path / "run") as tracker:
        log(tracker, 1, 4)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0] == '{"step": 1, "train/loss": 1.0, "train/gold_share": null}'
    assert json.loads(lines[2]) == {"step": 2, "eval/own/wer": 20.0}
    shown = points(tmp_path / "run")
    assert shown["train/loss"] == [(step, [np.float32(1 / step)]) for step in range(1, 5)]
    assert np.isnan(shown["train/gold_share"][0][1][0])
    assert shown["examples"] == [(2, [b"step *2*"]), (4, [b"step *4*"])]
    assert [step for step, _ in shown["attention"]] == [2, 4]
    width, height, png = shown["attention"][0][1]
    assert (width, height, png[:4]) == (b"3", b"2", b"\x89PNG")


def test_a_line_is_on_its_way_when_the_call_returns(tmp_path):
    with Tracker(tmp_path) as tracker:
        tracker.scalars(1, {"train/loss": 2.0})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "train/loss": 2.0}\n'
        tracker.flush()
        assert points(tmp_path)["train/loss"] == [(1, [2.0])]


@pytest.mark.parametrize("cut", ['{"step": 4, "eval/o', '{"step": 4, "x": 1.0}'])
@pytest.mark.parametrize("restarts", [[(4, 10)], [(4, 7), (6, 10)], [(0, 10)], [(None, 10)]])
def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path, restarts, cut):
    with Tracker(tmp_path / "whole") as tracker:
        log(tracker, 1, 10)
    with Tracker(tmp_path / "stopped") as tracker:
        log(tracker, 1, 7)
    with (tmp_path / "stopped" / "metrics.jsonl").open("a") as file:
        file.write(cut)  # killed while writing
    for resume_step, last in restarts:
        with Tracker(tmp_path / "stopped", resume_step) as tracker:
            log(tracker, (resume_step or 0) + 1, last)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert (stopped / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert str(points(stopped)) == str(points(whole))  # as text, since NaN != NaN
    assert len(list(stopped.glob("events*"))) == 1


@pytest.fixture
def data_server(tmp_path):
    """TensorBoard's default backend, running; calling it returns run -> tag -> steps."""
    try:
        binary = server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        pytest.skip("tensorboard-data-server has no binary for this platform")
    port_file = tmp_path / "port"
    arguments = ["--reload=1", "--port=0", f"--port-file={port_file}", "--die-after-stdin"]
    command = [binary.path, f"--logdir={tmp_path}", *arguments]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    wait_for(True, lambda: port_file.exists() and port_file.read_text().endswith("\n"))
    address = f"localhost:{int(port_file.read_text())}"
    credentials, options = grpc_util.ChannelCredsType.LOCAL.channel_config()
    channel = grpc.secure_channel(address, credentials, options=options)
    provider = grpc_provider.GrpcDataProvider(address, grpc_provider.make_stub(channel))

    def steps():
        shown = provider.read_scalars(
            context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000
        )
        return {
            run: {tag: [point.step for point in points] for tag, points in tags.items()}
            for run, tags in shown.items()
        }

    yield steps
    channel.close()
    server.communicate()  # closes stdin, which ends it


def wait_for(expected, ask, timeout=15.0):
    end = time.monotonic() + timeout
    while (answer := ask()) != expected and time.monotonic() < end:
        time.sleep(0.1)
    assert answer == expected


def test_a_running_server_sees_no_step_twice(tmp_path, data_server):
    def shown(last):
        every = list(range(1, last + 1))
        tags = {"train/loss": every, "train/gold_share": every, "eval/own/wer": every[1::2]}
        return {"linear/seed_0": tags}

    folder = tmp_path / "linear" / "seed_0"
    with Tracker(folder) as tracker:
        log(tracker, 1, 7)
    wait_for(shown(7), data_server)
    with Tracker(folder, 4) as tracker:
        wait_for(shown(4), data_server)
        log(tracker, 5, 8)
    wait_for(shown(8), data_server)


def test_the_valid_part_of_a_damaged_event_file_is_kept(tmp_path):
    with Tracker(tmp_path) as tracker:
        log(tracker, 1, 6)
    path = next(tmp_path.glob("events*"))
    path.write_bytes(path.read_bytes()[:-200])
    with Tracker(tmp_path, 2) as tracker:
        log(tracker, 3, 6)
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 6]


def hparams_table(folder):
    """The answers of TensorBoard's HPARAMS plugin to its own page."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    backend = backend_context.Context(SimpleNamespace(data_provider=provider))
    request = context.RequestContext()
    experiment = get_experiment.Handler(request, backend, "", api_pb2.GetExperimentRequest()).run()
    columns = [
        {"metric": {"group": metric.name.group, "tag": metric.name.tag}}
        for metric in experiment.metric_infos
    ]
    ask = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        aggregation_type=api_pb2.AGGREGATION_AVG,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        col_params=[api_pb2.ColParams(metric=column["metric"]) for column in columns],
    )
    return experiment, list_session_groups.Handler(request, backend, "", ask).run().session_groups


def test_the_hparams_table_has_one_row_per_schedule_with_its_seeds_averaged(tmp_path):
    for schedule in ["linear", "constant"]:
        for seed in range(3):
            with Tracker(tmp_path / schedule / f"seed_{seed}") as tracker:
                tracker.hparams({"schedule": schedule, "hidden_size": 8, "tied": True}, schedule)
                tracker.scalars(5, {"test/own/wer": 30.0 + seed})
    experiment, rows = hparams_table(tmp_path)
    assert {info.name for info in experiment.hparam_infos} == {"schedule", "hidden_size", "tied"}
    assert [info.name.tag for info in experiment.metric_infos] == ["test/own/wer"]
    assert {row.name: len(row.sessions) for row in rows} == {"linear": 3, "constant": 3}
    for row in rows:
        assert row.hparams["schedule"].string_value == row.name
        assert [value.value for value in row.metric_values] == [31.0]
        assert {session.status for session in row.sessions} == {api_pb2.STATUS_SUCCESS}


def test_a_run_that_raises_is_a_failed_session_until_it_is_resumed(tmp_path):
    def status():
        return hparams_table(tmp_path)[1][0].sessions[0].status

    def fail():
        with Tracker(tmp_path / "run") as tracker:
            log(tracker, 1, 2)
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        fail()
    assert status() == api_pb2.STATUS_FAILURE
    with Tracker(tmp_path / "run", 2) as tracker:
        log(tracker, 3, 4)
    assert status() == api_pb2.STATUS_SUCCESS


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write to .*run: Not a directory"):
        Tracker(tmp_path / "file" / "run")


def test_what_is_imported():
    modules = "s2s_jax.lab.runs.tracking, s2s_jax.lab.runs.checkpoints"
    code = f"import sys, {modules}; print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ["tensorflow", "pandas", "matplotlib", "scipy.stats", "orbax"]:
        assert f"'{name}'" not in names.stdout


def test_a_full_disk_is_one_line(tmp_path):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            self.write("")

        close = flush

    tracker = Tracker(tmp_path)
    opened, tracker._metrics = tracker._metrics, Full()
    message = f"cannot write to {tmp_path}: No space left on device"
    for act in (lambda: tracker.scalars(1, {"train/loss": 1.0}), tracker.flush, tracker.close):
        with pytest.raises(LabError, match=message):
            act()
    opened.close()
    tracker._writer.close()


def test_a_thread_that_meets_a_full_disk_prints_nothing(tmp_path, capsys):
    tracker = Tracker(tmp_path)
    worker = tracker._writer._async_writer._worker
    worker._record_writer = SimpleNamespace(write=lambda data: 1 / 0)
    tracker.scalars(1, {"train/loss": 1.0})
    worker.join()
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):  # the writer raises it itself
        tracker.flush()
    tracker._metrics.close()


def test_tensorboard_has_what_is_shown_and_the_record_what_is_stored(tmp_path):
    own = CATALOG.with_scores([Metric("mine", "mine", "%", 100)])
    values = {"own/token_accuracy": 0.25, "own/wer": 25.0, "own/mine": 0.5, "teacher_prob": 0.5}
    with Tracker(tmp_path) as tracker:
        tracker.scalars(1, values, own)
        tracker.scalars(2, values)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line).items() >= values.items()
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = {
        name: [point.tensor_proto.float_val[0] for point in events.Tensors(name)] for name in values
    }
    assert shown == {
        "own/token_accuracy": [25, 25],
        "own/wer": [25, 25],
        "own/mine": [50, 0.5],  # unknown to another catalogue
        "teacher_prob": [0.5, 0.5],
    }
    about = events.SummaryMetadata("own/token_accuracy").summary_description
    assert about == "token accuracy (%)"
