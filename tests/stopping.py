"""`python -m vans.train`, ended after some steps: python -m tests.stopping STEPS STAGE [--cell NAME]."""

import os
import sys

from vans.train import __main__ as headless
from vans.train.runs import Run

steps, log = int(sys.argv.pop(1)), Run.log


def stopping(self: Run, step: int, **values) -> None:
    log(self, step, **values)
    if step == steps - 1:
        self.checkpoints.settle()
        self.ranks.barrier()
        if self.ranks.main:
            print(f"stopped after step {step}", flush=True)
        os._exit(0)


Run.log = stopping  # type: ignore[method-assign]
raise SystemExit(headless.main())
