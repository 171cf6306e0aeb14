"""The demo competition, frozen and fine-tuned in several ways, on 2,000 clean test labels.

The test labels are in no file: `podium score` computes them. Out: a Markdown table on stdout, with
--write also in docs/results.md. About twenty minutes on two cores.

    python benchmarks/demo_models.py --write
"""

from __future__ import annotations

import argparse
import re

from clones import fresh_clone, load_metrics, run, set_param, write_table
from eda_speed import cpu_model

FINE_TUNE = {"flip": "both", "lr": "1e-3", "epochs": "12"}
MODELS = {
    "default: frozen features, linear head": {},
    "`train.views=8 train.flip=both`": {"views": "8", "flip": "both"},
    "`model.freeze=trunk train.views=8`": {**FINE_TUNE, "freeze": "trunk", "views": "8"},
    "`model.freeze=none`": {**FINE_TUNE, "freeze": "none"},
    "`model.freeze=none train.size_schedule=[[0,64],[0.4,96],[0.75,128]]`": {
        **FINE_TUNE,
        "freeze": "none",
        "size_schedule": "[[0,64],[0.4,96],[0.75,128]]",
    },
    "`model.freeze=none train.views=8 train.layer_decay=0.9 "
    "train.unfreeze=[[0,head],[0.15,top],[0.4,all]]`": {
        **FINE_TUNE,
        "freeze": "none",
        "views": "8",
        "layer_decay": "0.9",
        "unfreeze": "[[0,head],[0.15,top],[0.4,all]]",
    },
}
HEADER = (
    "| params | val accuracy, 3 % of labels wrong (95 %) | true accuracy on 2,000 test images "
    "| int8: true accuracy, MB | features + training |\n|---|---|---|---|---|"
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
            run(clone, "git", "checkout", "--quiet", "params.yaml")
            for key, value in changes.items():
                set_param(clone, key, value)
            run(clone, "dvc", "repro", "--quiet")
            evaluate, compress = load_metrics(clone, "evaluate"), load_metrics(clone, "compress")
            true, true_int8 = (
                float(re.findall(r"accuracy ([\d.]+)", run(clone, "podium", "score", file))[0])
                for file in ("submission.csv", "submission_compressed.csv")
            )
            shipped = compress[compress["shipped"]]
            seconds = sum(
                load_metrics(clone, f"measured/{stage}")["seconds"]
                for stage in ("features", "train")
            )
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
    eda_line = (
        f"2 processes on {cpu_model()}, default demo (seed 0, 800 training images). Rows with "
        "`model.freeze` trunk or none: `lr=1e-3 epochs=12 train.flip=both`.\n"
    )
    table = "\n".join([eda_line, HEADER, *rows])
    print(table)
    if arguments.write:
        write_table("demo", table)


if __name__ == "__main__":
    main()
