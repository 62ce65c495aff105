"""The reason of a failure is the exception's own line, whatever else the log ends with."""

import subprocess
import sys

import pytest

from s2s_jax.lab.sweeps.log_errors import error_of

TRACEBACK = """Traceback (most recent call last):
  File "/somewhere/a.py", line 3, in f
    raise ValueError("the loss is gone")
"""
JAX = """--------------------
For simplicity, JAX has removed its internal frames from the traceback of the following exception. \
Set JAX_TRACEBACK_FILTERING=off to include these.
"""
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
IGNORED = """Exception ignored in: <function Checkpointer.__del__ at 0x7f>
Traceback (most recent call last):
  File "/somewhere/b.py", line 9, in __del__
OSError: [Errno 9] Bad file descriptor
"""
IN_THREAD = """Exception in thread Thread-3 (write):
Traceback (most recent call last):
  File "/somewhere/b.py", line 9, in write
RuntimeError: of a thread

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/somewhere/b.py", line 11, in write
OSError: of a thread, too
"""
LEAKS = """/usr/lib/python3.11/multiprocessing/tracker.py:254: UserWarning: 1 leaked semaphore
  warnings.warn('resource_tracker: There appear to be %d leaked semaphore objects')
"""
GONE = "ValueError: the loss is gone"


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (f"step 1\n{TRACEBACK}{GONE}\n", GONE),
        (f"{TRACEBACK}{GONE}\n{JAX}", GONE),
        (f"{TRACEBACK}{GONE}\nand more of it\nError in line 3: x\n{JAX}", GONE),
        (f"{TRACEBACK}KeyError: 'a'\n{JAX}{CAUSE}{TRACEBACK}{GONE}\n{JAX}{LEAKS}", GONE),
        (f"{TRACEBACK}{GONE}\n{JAX}{IGNORED}", GONE),
        (f"{TRACEBACK}{GONE}\n{IN_THREAD}{LEAKS}", GONE),
        (f"{IN_THREAD}{TRACEBACK}{GONE}\n", GONE),
        (f"{IN_THREAD}step 3\n", "OSError: of a thread, too"),
        (f"{TRACEBACK}AssertionError\n{JAX}", "AssertionError (a.py, line 3)"),
        (f"{TRACEBACK}a._b.XlaRuntimeError: INTERNAL: x\n", "a._b.XlaRuntimeError: INTERNAL: x"),
        (f"{TRACEBACK}RuntimeError: \n  all of it\n", "RuntimeError: all of it"),
        (f"{TRACEBACK}s2s_jax.lab.base.errors.LabError: no such data\n", "no such data"),
        (f"s2s: no such data\n{IGNORED}{LEAKS}", "no such data"),
        (f"{TRACEBACK}{GONE}\ns2s: no such data\n", "no such data"),
        (f"s2s: 3 lines are left out\n{TRACEBACK}{GONE}\n", GONE),
        (f"out of memory: RESOURCE_EXHAUSTED: 3\n{LEAKS}", "out of memory: RESOURCE_EXHAUSTED: 3"),
        (f'    f()\n  File "x.py", line 3\n{GONE}\n{JAX}', GONE),  # starts in the middle
        (
            "Fatal Python error: Segmentation fault\n\nExtension modules: numpy\n",
            "Fatal Python error: Segmentation fault",
        ),
        (
            "F0000 00:00:1754 123 a.cc:12] Check failed: ok\n*** stack trace ***\n@ 0x1 f()\n",
            "F0000 00:00:1754 123 a.cc:12] Check failed: ok",
        ),
        ("terminate called\n  what():  std::bad_alloc\n\n", "what():  std::bad_alloc"),
        ("", ""),
        ("x" * 9000, "x" * 500 + "..."),
    ],
)
def test_the_error_is_chosen_by_structure(log, error):
    assert error_of(log.splitlines()) == error


def test_the_error_is_found_in_what_python_and_jax_really_print():
    program = (
        "import jax\n"
        "class Noisy:\n"
        "    def __del__(self): raise OSError('noise')\n"
        "def f(x): raise ValueError('the loss is gone\\nfor good')\n"
        "noisy = Noisy()\n"
        "try: jax.jit(f)(1)\n"
        "except ValueError as error: raise RuntimeError('it was f') from error"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "For simplicity" in done.stderr
    assert done.stderr.rstrip().endswith("OSError: noise")
    assert error_of(done.stderr.splitlines()) == "RuntimeError: it was f"
