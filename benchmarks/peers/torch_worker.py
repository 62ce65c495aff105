"""Scheduled sampling in PyTorch as people write it; runs in the peer's own environment.

A process that reads a question a line and answers with a line, both JSON:

    {"do": "build", "variant": ..., "shape": {...}, "num_threads": n}  -> {"versions": ...}
    {"do": "warm", "batch": {...}, "teacher_probs": [...]}             -> {"seconds": ...}
    {"do": "run", "teacher_probs": [...], "passes": n}                 -> {"seconds": a step's}

Variants: "eager" and "compiled", a Python loop over target time with LSTMCell, attention,
multinomial and torch.where, the second under torch.compile; "lstm", teacher forcing with nn.LSTM
over the whole target, the least that such a step costs.

Equal to the model here: embeddings, a bidirectional LSTM encoder with hidden/2 a direction, a
bridge tanh(W s) for each of the two states, an LSTM decoder, general attention after the cell, tanh
of the combined context and state, output layer with bias, cross-entropy over the targets that are
not padding, a coin and a sample a token and no gradient through them, global clipping to norm 1,
Adam, float32 parameters (and autocast to bfloat16 where that is asked for), the batches.

Not equal, each in the peer's favour or as people have it: nn.LSTM's second bias; the encoder runs
over padding (attention is masked), where the encoder here skips it; no metrics but the loss; the
random numbers are PyTorch's. On a GPU nn.LSTM is cuDNN's.
"""

# pyright: reportMissingImports=false
import contextlib
import json
import os
import sys
import time

import torch
from torch import nn
from torch.nn import functional

PAD, BOS = 0, 1


class EncoderDecoder(nn.Module):
    """Encoder, attention and output; the decoder is a cell or a whole nn.LSTM."""

    def __init__(self, shape, use_cell):
        super().__init__()
        hidden, embedding = shape["hidden_size"], shape["embedding_size"]
        self.source_embedding = nn.Embedding(shape["source_vocab_size"], embedding)
        self.target_embedding = nn.Embedding(shape["target_vocab_size"], embedding)
        self.encoder = nn.LSTM(embedding, hidden // 2, batch_first=True, bidirectional=True)
        self.bridge_h = nn.Linear(hidden, hidden, bias=False)
        self.bridge_c = nn.Linear(hidden, hidden, bias=False)
        if use_cell:
            self.decoder = nn.LSTMCell(embedding, hidden)
        else:
            self.decoder = nn.LSTM(embedding, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.combine = nn.Linear(2 * hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, shape["target_vocab_size"])

    def encode(self, source):
        """Encoder states, what attention reads of them, and the decoder's first states."""
        encoded, (h, c) = self.encoder(self.source_embedding(source))
        h = torch.tanh(self.bridge_h(torch.cat([h[0], h[1]], dim=-1)))
        c = torch.tanh(self.bridge_c(torch.cat([c[0], c[1]], dim=-1)))
        return encoded, self.key(encoded), h, c

    def attend(self, states, encoded, keys, source_mask):
        """Attentional vectors of states [batch, time, hidden]."""
        scores = torch.bmm(states, keys.transpose(1, 2))
        weights = scores.masked_fill(~source_mask[:, None], -1e30).softmax(-1)
        context = torch.bmm(weights, encoded)
        return torch.tanh(self.combine(torch.cat([context, states], dim=-1)))


class ScheduledSampling(EncoderDecoder):
    """The loop over target time."""

    def __init__(self, shape):
        super().__init__(shape, use_cell=True)

    def forward(self, source, source_mask, target, teacher_prob):
        """The loss."""
        encoded, keys, h, c = self.encode(source)
        token = torch.full_like(target[:, 0], BOS)
        steps = []
        for t in range(target.shape[1]):
            h, c = self.decoder(self.target_embedding(token), (h, c))
            attended = self.attend(h[:, None], encoded, keys, source_mask)[:, 0]
            logits = self.output(attended)
            steps.append(logits)
            probs = logits.detach().float().softmax(-1)
            sample = torch.multinomial(probs, 1)[:, 0]
            gold = torch.rand_like(h[:, 0], dtype=torch.float32) < teacher_prob
            token = torch.where(gold, target[:, t], sample)
        return loss_of(torch.stack(steps, dim=1), target)


class TeacherForcing(EncoderDecoder):
    """The whole target at once."""

    def __init__(self, shape):
        super().__init__(shape, use_cell=False)

    def forward(self, source, source_mask, target, teacher_prob):
        """The loss."""
        encoded, keys, h, c = self.encode(source)
        tokens = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        states, _ = self.decoder(self.target_embedding(tokens), (h[None], c[None]))
        return loss_of(self.output(self.attend(states, encoded, keys, source_mask)), target)


def loss_of(logits, target):
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), target.flatten(), ignore_index=PAD
    )


class Worker:
    """A model, its optimiser, and the batch that it was last warmed up on."""

    def build(self, variant, shape, num_threads, dtype):
        """Makes the model and its optimiser."""
        torch.manual_seed(0)
        if num_threads:
            torch.set_num_threads(num_threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = TeacherForcing if variant == "lstm" else ScheduledSampling
        self.model = kind(shape).to(self.device)
        self.bfloat16 = dtype == "bfloat16"
        self.loss = self.model
        if variant == "compiled":
            torch._dynamo.reset()
            torch._dynamo.config.recompile_limit = 64  # a compilation for each batch shape
            self.loss = torch.compile(self.model, dynamic=False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        return {"torch": torch.__version__, "device": self.device}

    def warm(self, batch, teacher_probs):
        """Takes a batch as lists; the first steps on it compile."""
        self.batch = (
            torch.tensor(batch["source"], device=self.device),
            torch.tensor(batch["source_mask"], device=self.device),
            torch.tensor(batch["target"], device=self.device),
        )
        start = time.perf_counter()
        self.run(teacher_probs[:2], 1)
        return {"compile_seconds": time.perf_counter() - start} | self.run(teacher_probs, 1)

    def run(self, teacher_probs, passes):
        """Times train steps on the batch."""
        probs = [torch.tensor(p, device=self.device) for p in teacher_probs] * passes
        loss = torch.zeros(())
        self.wait()
        start = time.perf_counter()
        for teacher_prob in probs:
            self.optimizer.zero_grad()
            half = (
                torch.autocast(self.device, torch.bfloat16)
                if self.bfloat16
                else contextlib.nullcontext()
            )
            with half:
                loss = self.loss(*self.batch, teacher_prob)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.wait()
        return {
            "seconds": (time.perf_counter() - start) / len(probs),
            "loss": float(loss.detach()),
        }

    def wait(self):
        """Until the device has done all of it."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def main():
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = getattr(worker, question.pop("do"))(**question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
