"""A case that crashes or hangs ends alone, and says how."""

import os
import signal
import time

from tests.suites.isolated import Outcome, Wrong, run
from tvm_bitenc.errors import UnsupportedError


def behave(how):
    if how == "refuse":
        raise UnsupportedError("op", "cause", "Cure")
    if how == "wrong":
        raise Wrong("2 is not 3")
    if how == "raise":
        raise KeyError("it")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "hang":
        time.sleep(600)
    return how.upper()


def test_every_end_is_told_apart():
    cases = ["fine", "refuse", "wrong", "raise", "crash", "exit", "hang", "good"]
    assert run(behave, cases, limit=2, workers=3) == [
        Outcome("pass", "FINE"),
        Outcome("refused", "op: cause. Cure."),
        Outcome("wrong", "2 is not 3"),
        Outcome("raw", "KeyError: 'it'"),
        Outcome("raw", "killed by SIGKILL"),
        Outcome("raw", "left with exit code 3"),
        Outcome("hang", "took more than 2 s"),
        Outcome("pass", "GOOD"),
    ]


def test_no_cases():
    assert run(behave, []) == []
