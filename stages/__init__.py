"""The stages of dvc.yaml, one thin module each, run as `python -m stages.NAME`.

They run the `src` of the tree they stand in: a queued experiment must run the code it was queued
with, whatever is installed in the environment.
"""

import importlib.util
import sys
from pathlib import Path

_SRC = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(_SRC))

import podium  # noqa: E402
from podium.errors import EXIT_USER_ERROR  # noqa: E402
from podium.runtime import configure_math  # noqa: E402

if Path(podium.__file__).resolve().parent != _SRC / "podium":
    print(f"error: stages run {podium.__file__}, not {_SRC}: unset PYTHONPATH", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)
if importlib.util.find_spec("paddle") is None:
    print(
        f"error: {sys.executable} is not Podium's environment: `make run`, or "
        "`source .venv/bin/activate` before dvc",
        file=sys.stderr,
    )
    sys.exit(EXIT_USER_ERROR)

if sys.argv[0] == "-m":  # `python -m stages.NAME` is a process of its own; a test's import is not
    from podium.stage import begin

    begin()
configure_math()  # before any stage imports Paddle
