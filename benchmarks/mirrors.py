"""Which mirrors `train.flip: auto` uses, and why: the embedded and the real competitions.

In: the embedded competition and the real sets beside the repository (skipped with a word where they
are missing). Out: a Markdown table on stdout, with --write also in docs/accuracy.md. Some two minutes
on two cores.

    python benchmarks/mirrors.py --write
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from clones import ROOT, fresh_clone, run, write_table

sys.path.insert(0, str(ROOT / "src"))

from podium.data.image_cache import readable_rows
from podium.data.image_size import choose_image_size
from podium.data.manifest import load_manifest
from podium.runtime import configure_math

DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "embedded": "--demo",
    "gesture": str(DATA / "gesture" / "gesture.zip"),
    "lemon": str(DATA / "lemon"),
    "plates": str(DATA / "plates" / "plates.zip"),
}
HEADER = (
    "| competition | images | seen by | as they are | left and right swapped | upside down | flip |\n"
    "|---|---|---|---|---|---|---|"
)


def probe(name: str, source: str) -> Iterator[str]:
    """Rows of the table, from a fresh clone of HEAD."""
    configure_math()  # before Paddle loads
    from podium.engine.mirrors import find_mirrors

    with fresh_clone(f"mirrors-{name}") as clone:
        run(clone, "podium", "init", source)
        run(clone, "dvc", "repro", "--quiet", "eda")
        with contextlib.chdir(clone):
            rows = readable_rows(load_manifest(Path("data/manifest.csv")), "train")
            found = find_mirrors(rows, choose_image_size(None, rows), 0)
    for seen, one in found.answers.items():
        points = " | ".join(
            f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            for gain in (one.gains["horizontal"], one.gains["vertical"])
        )
        yield f"| {name} | {found.n_images} | {seen} | {one.accuracy:.1%} | {points} | {found.flip} |"


def probe_all() -> Iterator[str]:
    """The rows of what is there."""
    for name, source in COMPETITIONS.items():
        if not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        yield from probe(name, source)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    table = "\n".join([HEADER, *probe_all()])
    print(table)
    if arguments.write:
        write_table("mirrors", table)


if __name__ == "__main__":
    main()
