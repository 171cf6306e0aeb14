"""The demo competition with its defaults, frozen and fine-tuned, on 2,000 clean test labels.

The test labels are in no file: `podium score` computes them. Out: a Markdown table on stdout, with
--write also in docs/results.md. About twelve minutes on one core.

    python benchmarks/demo_models.py --write
"""

from __future__ import annotations

import argparse
import re

from clones import fresh_clone, load_metrics, run, set_param, write_table
from eda_speed import cpu_model

MODELS = {
    "default: frozen features, linear head": {},
    "`model.freeze=none train.flip=both lr=1e-3 epochs=12`": {
        "freeze": "none",
        "flip": "both",
        "lr": "1e-3",
        "epochs": "12",
    },
}
HEADER = (
    "| params | val accuracy, 3 % of labels wrong (95 %) | true accuracy on 2,000 test images "
    "| int8: true accuracy, MB | training |\n|---|---|---|---|---|"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    rows = []
    with fresh_clone("demo") as clone:
        run(clone, "podium", "init", "--demo", "--demo-test", "2000")
        for name, changes in MODELS.items():
            for key, value in changes.items():
                set_param(clone, key, value)
            run(clone, "dvc", "repro", "--quiet")
            evaluate, compress = load_metrics(clone, "evaluate"), load_metrics(clone, "compress")
            true, true_int8 = (
                float(re.findall(r"accuracy ([\d.]+)", run(clone, "podium", "score", file))[0])
                for file in ("submission.csv", "submission_compressed.csv")
            )
            shipped = compress[compress["shipped"]]
            seconds = load_metrics(clone, "measured/train")["seconds"]
            cells = [
                name,
                f"{evaluate['accuracy']:.1%} ({evaluate['accuracy_low']:.1%} to "
                f"{evaluate['accuracy_high']:.1%})",
                f"**{true:.1%}**",
                f"{true_int8:.1%}, {shipped['bytes'] / 1e6:.1f}",
                f"{seconds:.0f} s",
            ]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    eda_line = f"One thread of {cpu_model()}, default demo (seed 0, 800 training images).\n"
    table = "\n".join([eda_line, HEADER, *rows])
    print(table)
    if arguments.write:
        write_table("demo", table)


if __name__ == "__main__":
    main()
