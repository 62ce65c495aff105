"""OpenNMT-tf's training of the same model; runs in the peer's own environment.

    python opennmt_worker.py FOLDER '{"hidden_size": ..., ...}'

FOLDER has source.txt, target.txt, source_vocabulary.txt and target_vocabulary.txt. The last line of
standard output is JSON: the steps/s of OpenNMT-tf's own log lines, and the versions.

Equal to the model here: embeddings, a bidirectional LSTM encoder with hidden/2 a direction, a
DenseBridge with tanh, an LSTM decoder, Luong's general attention after the cell, tanh of the
combined context and state, no dropout, batches of so many pairs bucketed by length, the
inverse-sigmoid schedule with a coin and a sample a token, global clipping to norm 1, Adam.
OpenNMT-tf's decoder always feeds the attentional vector back into the cell; that is taken out here,
as the model it is held against does not, and it makes OpenNMT-tf faster.

Not equal: its bridge mixes the two final states; its buckets are one token wide, so it has less
padding and more shapes.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# pyright: reportAttributeAccessIssue=false
import json
import logging
import os
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import opennmt
import tensorflow as tf
import tensorflow_addons as tfa

_LINE = re.compile(r"Step = (\d+) ; steps/s = ([0-9.]+)")


class Log(logging.Handler):
    """Keeps the steps/s that OpenNMT-tf reports."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        """Called by `logging`."""
        match = _LINE.search(record.getMessage())
        if match:
            self.found.append((int(match[1]), float(match[2])))


def make_model(sizes):
    hidden, embedding = sizes["hidden_size"], sizes["embedding_size"]
    decoder = opennmt.decoders.AttentionalRNNDecoder(
        1,
        hidden,
        bridge_class=lambda: opennmt.layers.DenseBridge(activation=tf.math.tanh),
        attention_mechanism_class=tfa.seq2seq.LuongAttention,
        cell_class=tf.keras.layers.LSTMCell,
        dropout=0.0,
    )
    decoder.cell._cell_input_fn = lambda inputs, attention: inputs
    return opennmt.models.SequenceToSequence(
        opennmt.inputters.WordEmbedder(embedding),
        opennmt.inputters.WordEmbedder(embedding),
        opennmt.encoders.LSTMEncoder(1, hidden // 2, bidirectional=True, dropout=0.0),
        decoder,
    )


def main():
    folder, sizes = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print must not get into the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sizes["num_threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(sizes["num_threads"])
    log = Log()
    logger = tf.get_logger()
    logger.setLevel(logging.INFO)
    logger.addHandler(log)
    config = {
        "model_dir": f"{folder}/model",
        "data": {
            "train_features_file": f"{folder}/source.txt",
            "train_labels_file": f"{folder}/target.txt",
            "source_vocabulary": f"{folder}/source_vocabulary.txt",
            "target_vocabulary": f"{folder}/target_vocabulary.txt",
        },
        "params": {
            "optimizer": "Adam",
            "optimizer_params": {"global_clipnorm": 1.0},
            "learning_rate": 0.001,
            "scheduled_sampling_type": "inverse_sigmoid",
            "scheduled_sampling_read_probability": 1,
            "scheduled_sampling_k": sizes["k"],
        },
        "train": {
            "batch_size": sizes["batch_size"],
            "batch_type": "examples",
            "length_bucket_width": 1,
            "max_step": sizes["num_steps"],
            "save_summary_steps": sizes["report_steps"],
            "save_checkpoints_steps": None,
            "sample_buffer_size": -1,
        },
    }
    opennmt.Runner(make_model(sizes), config).train()
    answer = {
        "steps_per_second": log.found,
        "opennmt": opennmt.__version__,
        "tensorflow": tf.__version__,
    }
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
