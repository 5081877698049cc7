"""One run of a task that is killed at a random moment, perhaps in its resume too, and ends."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping
from typing import Final

from crabrt.bench.kept import Unit
from crabrt.bench.recovery_judging import MODES, WAIT_S, Expected, last_run
from crabrt.bench.recovery_rig import Ended, Rig

_AGAIN: Final = 0.25
"""Which share of the killed runs is killed once more while it is resumed."""
_AGAIN_WITHIN_S: Final = 2.0
_TRIES: Final = 5
_ANEW: Final = "stopped before its first checkpoint was durable"
_TAIL: Final = 400


class Crash:
    """One such run.

    Args:
        rig: where.
        expected: what it has to come to.
        mode: of `MODES`.
        seed: decides when it is killed.
    """

    def __init__(self, rig: Rig, expected: Expected, mode: str, seed: str) -> None:
        self._rig, self._expected, self._mode = rig, expected, mode
        self._rng = random.Random(seed)  # noqa: S311  a moment, no secret
        self._words = ["--wait", str(WAIT_S)]
        if mode == "chat":
            self._words += ["--chat", str(rig.chat)]

    def measure(self) -> Unit:
        """Do it.

        ``wrong`` lists how it differs; ``took_ms``: from the start of the resumed program to its
        first act, None where nothing was left to do; ``killed_s``: when, after its loop had begun;
        ``again``: whether the resumed program was killed too; ``anew``: whether nothing was durable
        and it had to be started again.
        """
        for _ in range(_TRIES):
            killed_s = self._rng.random() * self._expected.took_s
            self._rig.fresh()
            if self._rig.kill_after(self._start({}), "begins", killed_s):
                break
        else:
            return {"failed": "it always ended before it was killed"}
        again = self._rng.random() < _AGAIN
        delay_s = self._rng.random() * _AGAIN_WITHIN_S
        if again:
            again = self._rig.kill_after(self._resume(), "begins", delay_s)
        ended = self._rig.finish(self._resume())
        anew = ended.status not in {0, None} and _ANEW in ended.errors
        if anew:
            ended = self._rig.finish(self._start({}))
        acts = self._rig.noted("thinks", "acts")
        return {
            "wrong": self._wrong(ended),
            "took_ms": None if acts is None else round((acts - self._rig.began) * 1e3, 1),
            "killed_s": round(killed_s, 3),
            "again": again,
            "anew": anew,
        }

    def _start(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return self._rig.agent("run", *self._words, env={**MODES[self._mode], **env})

    def _resume(self) -> subprocess.Popen[bytes]:
        is_known = self._mode != "chat" and last_run(self._rig.home) is not None
        return self._start({"CRAB_RESUME": "last"} if is_known else {})

    def _wrong(self, ended: Ended) -> list[str]:
        if ended.status is None:
            return ["it did not end in time"]
        if ended.status:
            return [f"it ended with {ended.status}: {ended.errors.strip()[-_TAIL:]}"]
        said = ended.result("a resumed run")
        journalled = self._mode != "chat"
        wrong = self._expected.differences(self._rig, said, journalled=journalled)
        warned = ended.errors.strip()
        return [*wrong, f"warned: {warned[-_TAIL:]}"] if wrong and warned else wrong
