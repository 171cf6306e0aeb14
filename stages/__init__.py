"""The stages of dvc.yaml, one thin module each, run as `python -m stages.NAME`.

They run the `src` of the tree they stand in: a queued experiment must run the code it was queued
with, whatever is installed in the environment.
"""

import sys
from pathlib import Path

_SRC = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(_SRC))

import podium  # noqa: E402
from podium.runtime import configure_math  # noqa: E402
from podium.stage import begin  # noqa: E402

if Path(podium.__file__).resolve().parent != _SRC / "podium":
    raise SystemExit(
        f"error: stages run {podium.__file__}, not {_SRC}: unset PYTHONPATH and run again"
    )

if sys.argv[0] == "-m":  # `python -m stages.NAME` is a process of its own; a test's import is not
    begin()
configure_math()  # before any stage imports Paddle
