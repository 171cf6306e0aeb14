"""How far two classes of CPUs are apart: what the tolerances of a certificate are chosen by.

The committed DAG runs twice, as `podium certify` runs it: once as this machine does it, once with
oneDNN and MKL told to use no vector unit wider than AVX2 (ONEDNN_MAX_CPU_ISA, and on Intel
MKL_ENABLE_INSTRUCTIONS), which is how they would choose on an older CPU. Out: a Markdown table of
the differences beside the tolerances; with --write also in docs/certificate.md.

    python benchmarks/cpu_classes.py
    python benchmarks/cpu_classes.py --set data.subset=1.0
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clones import ROOT, write_table
from eda_speed import cpu_model

sys.path.insert(0, str(ROOT / "src"))

from podium.certify.certify import SMALL, Options, run_all, scratch_folder
from podium.certify.clones import parse_overrides
from podium.certify.comparison import compare
from podium.certify.tolerances import Tolerances, compare_loosely, exact_files
from podium.certify.trials import PLAIN, REFERENCE, Trial
from podium.dag import load_stages

NARROW = Trial(
    "narrow",
    "no vector unit wider than AVX2",
    "narrow",
    environment={**PLAIN, "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
)


def measure(overrides: dict[str, object]) -> str:
    """The table."""
    options = Options(overrides, Path(), keep=False)
    with scratch_folder(keep=False) as scratch:
        _, (wide, narrow) = run_all(ROOT, scratch, options, (REFERENCE, NARROW))
        stages, exact = list(load_stages(ROOT)), exact_files(ROOT)
    found = compare(wide.hashes, narrow.hashes, wide.running.losses, narrow.running.losses, stages)
    checks = compare_loosely(
        (wide.hashes, narrow.hashes),
        (wide.scores, narrow.scores),
        (wide.predictions, narrow.predictions),
        exact,
        Tolerances(),
    )
    said = (
        ", ".join(f"{name}={value}" for name, value in overrides.items()) or "params as committed"
    )
    step = f"from step {found.loss.step} of the training on" if found.loss else "at no step"
    lines = [
        f"{cpu_model()}, as it is and held to AVX2 ({said}; "
        f"{wide.scores.get('n', 0):g} val images): "
        f"{len(found.differences)} of {found.n_same + len(found.differences)} files differ, the losses "
        f"{step}.",
        "",
        "| what | difference | allowed |",
        "|---|---|---|",
        *(f"| {c.what} | {c.difference:.4g} | {c.allowed:g} |" for c in checks if c.allowed),
    ]
    exact_ones = [check for check in checks if not check.allowed]
    same = sum(check.passes for check in exact_ones)
    return "\n".join([*lines, "", f"Of {len(exact_ones)} things that must be equal, {same} were."])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--write", action="store_true", help="put the table in docs/certificate.md")
    arguments = parser.parse_args()
    table = measure({**SMALL, **parse_overrides(arguments.set)})
    print(table)
    if arguments.write:
        write_table("cpu classes", table)


if __name__ == "__main__":
    main()
