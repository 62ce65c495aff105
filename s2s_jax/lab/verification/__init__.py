"""`s2s verify`: checks the train step against exact theory."""

from s2s_jax.lab.verification.verification import TEACHER_PROBS, make_markov_chain, verify

__all__ = [
    "TEACHER_PROBS",
    "make_markov_chain",
    "verify",
]
