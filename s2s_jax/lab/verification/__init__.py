"""`s2s verify`: checks the train step against exact theory."""

from s2s_jax.lab.verification.chain import make_markov_chain
from s2s_jax.lab.verification.methods import METHODS, Method, select_methods
from s2s_jax.lab.verification.verification import verify

__all__ = [
    "METHODS",
    "Method",
    "make_markov_chain",
    "select_methods",
    "verify",
]
