"""The runs of a certificate: what each of them sees that must not matter.

One is what all others are compared with. The second stands in another place, in another language
and time zone, with other hash seeds and thread wishes; the third is killed in training and goes on;
the fourth has other cores and other data workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PYTHON, DVC, GROUP = "python", "dvc", "group"


@dataclass(frozen=True)
class Trial:
    """One run of the whole DAG in a clone of its own.

    Attributes:
        name: short, for lines and tables.
        what: a sentence.
        folder: of the clone, below the scratch folder.
        cores: how many it may use; None: all there are.
        workers: threads that read images; None: as many as usual.
        environment: variables that must not matter.
        kills: whom SIGKILL hits in training, one after another; each time the run goes on.
    """

    name: str
    what: str
    folder: str
    cores: int | None = None
    workers: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    kills: tuple[str, ...] = ()


PLAIN = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}
ODD = {
    "LC_ALL": "C",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "4242",
    "OMP_NUM_THREADS": "3",
    "MKL_NUM_THREADS": "3",
}

REFERENCE = Trial("reference", "a clean clone, undisturbed", "a", environment=PLAIN)
TRIALS = (
    REFERENCE,
    Trial(
        "elsewhere",
        "another clean clone: longer path, other locale, time zone, hash seed and thread wishes",
        "a folder with a longer name/and one more",
        environment=ODD,
    ),
    Trial(
        "killed",
        "kill -9 in training: its python, then dvc, then the whole process group; gone on each time",
        "killed",
        environment=PLAIN,
        kills=(PYTHON, DVC, GROUP),
    ),
    Trial(
        "other cores",
        "one core, and three threads that read images",
        "other cores",
        cores=1,
        workers=3,
        environment=PLAIN,
    ),
)
