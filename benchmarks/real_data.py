"""The real competitions, by `podium init` alone: out-of-fold score beside the baselines.

In: shared/data beside the repository (skipped with a word where it is missing). For each
competition a fresh clone of HEAD is made, `podium init` brings the files in, and one `dvc repro` with
`split.val_fold: all` trains a model per fold and hands in their mean. Out: a Markdown table on stdout,
and with --write also in docs/results.md. The newest row of each competition is kept under
benchmarks/measured with its commit and CPU, so that they can be run one by one and stand in one table;
it is not measured again by the same code.

    make check-real
    python benchmarks/real_data.py --only lemon --head
    python benchmarks/real_data.py --only plates --fold    # one model, as params.yaml has it
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clones import (
    ROOT,
    fresh_clone,
    hash_tracked,
    keep,
    load_kept,
    load_metrics,
    read_commit,
    run,
    set_params,
    write_table,
)
from eda_speed import cpu_model

DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "lemon": DATA / "lemon",
    "gesture": DATA / "gesture" / "gesture.zip",
    "plates": DATA / "plates" / "plates.zip",
}
# What decides a row, by its place in a commit: other commits may share it.
CODE = ("src", "stages", "dvc.yaml", "params.yaml", "requirements.lock")
HEAD = {"model.freeze": "all", "lr": 3e-3, "train.views": 0, "train.ema": 0.0}
HEADER = (
    "| competition | images, classes | {judged} (95 %) | balanced | majority "
    "| linear thumbnails | border alone | fold 0: float32 -> as shipped | eda + audit | submission "
    "| init + repro |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def measure(name: str, source: Path, clone: Path, params: Mapping[str, Any]) -> str:
    """One row of the table."""
    start = time.perf_counter()
    run(clone, "podium", "init", str(source))
    init_s = time.perf_counter() - start
    set_params(clone, params)
    start = time.perf_counter()
    run(clone, "dvc", "repro", "--quiet")
    run_s = time.perf_counter() - start
    compress, submit = load_metrics(clone, "compress"), load_metrics(clone, "submit")
    metrics = load_metrics(clone, "evaluate")
    eda = load_metrics(clone, "eda")
    trained, shipped = compress["trained-float32-paddle"], compress[compress["shipped"]]
    cells = [
        name,
        f"{eda['n_train']} + {eda['n_test']}, {eda['n_classes']}",
        f"**{metrics['accuracy']:.1%}** ({metrics['accuracy_low']:.1%} to "
        f"{metrics['accuracy_high']:.1%})",
        f"{metrics['balanced_accuracy']:.1%}",
        f"{eda['majority_accuracy']:.1%}",
        f"{eda['linear_accuracy']:.1%}",
        f"{eda['border_accuracy']:.1%}",
        f"{trained['accuracy']:.1%}, {trained['bytes'] / 1e6:.1f} MB -> "
        f"{compress['shipped']} {shipped['accuracy']:.1%}, {shipped['bytes'] / 1e6:.1f} MB",
        _describe_audit(clone),
        f"{submit['rows']} rows, legal",
        f"{init_s:.0f} + {run_s:.0f} = {init_s + run_s:.0f} s, cores: {len(os.sched_getaffinity(0))}",
    ]
    return "| " + " | ".join(cells) + " |"


def _describe_audit(clone: Path) -> str:
    """What alarms, and how long eda and audit took to find out, imports and decoding included."""
    found = load_metrics(clone, "audit")
    alarms = [one["check"] for one in found["findings"] if one["severity"] == "alarm"]
    seconds = [load_metrics(clone, f"measured/{stage}")["seconds"] for stage in ("eda", "audit")]
    said = f"alarms: {', '.join(alarms)}" if alarms else "no alarm"
    return f"{said}; {found['n_near_duplicate_groups']} groups of twins; {sum(seconds):.0f} s"


def hash_code(params: Mapping[str, Any]) -> str:
    """Of what decides a row."""
    text = json.dumps([hash_tracked(*CODE), params], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def make_table(kept: Mapping[str, Mapping[str, str]], what: str, judged: str) -> str:
    """The newest row of each competition, and where they come from."""
    found = {name: kept[name] for name in COMPETITIONS if name in kept}
    origins = "; ".join(f"{name}: {one['commit']}, {one['cpu']}" for name, one in found.items())
    lead = f"{what}. Commit and CPU: {origins}.\n"
    return "\n".join([lead, HEADER.format(judged=judged), *(one["row"] for one in found.values())])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=COMPETITIONS, help="some of them")
    parser.add_argument("--fold", action="store_true", help="one fold, as params.yaml has it")
    parser.add_argument("--head", action="store_true", help="a linear head on frozen features")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    params = {
        **({} if arguments.fold else {"split.val_fold": "all"}),
        **(HEAD if arguments.head else {}),
    }
    table_name = "real data"
    table_name += ", head" if arguments.head else ""
    table_name += ", fold 0" if arguments.fold else ""
    kept_as = table_name.replace(",", "").replace(" ", "_")
    kept = load_kept(kept_as)
    code, commit = hash_code(params), read_commit()
    for name, source in COMPETITIONS.items():
        if arguments.only and name not in arguments.only:
            continue
        if not source.exists():
            print(f"skipped {name}: {source.relative_to(ROOT.parent)} is not beside the repository")
            continue
        if kept.get(name, {}).get("code") != code:
            with fresh_clone(name) as clone:
                row = measure(name, source, clone, params)
            kept[name] = {"row": row, "code": code, "commit": commit, "cpu": cpu_model()}
            keep(kept_as, kept)
        print(kept[name]["row"], flush=True)
    what = "A linear head on frozen features" if arguments.head else "Default params"
    judged = "accuracy on the val images of fold 0" if arguments.fold else "5-fold OOF accuracy"
    table = make_table(kept, what, judged)
    print(table)
    if arguments.write:
        write_table(table_name, table)


if __name__ == "__main__":
    main()
