"""Stage label_shuffle: manifest and splits -> data/train_list.csv (image_id, repeats allowed)."""

from pathlib import Path

import pandas as pd

from podium.data.label_shuffle import label_shuffle, make_label_shuffle_report, make_train_rows
from podium.data.manifest import load_manifest
from podium.data.params import LabelShuffleParams, SplitParams
from podium.data.splits import load_splits
from podium.files import write_csv, write_metrics
from podium.params import Params, Seed, load_params
from podium.stage import run_stage

NAME = "label_shuffle"


class LabelShuffleStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    split: SplitParams
    label_shuffle: LabelShuffleParams


def main() -> None:
    params = load_params(LabelShuffleStageParams)
    manifest = load_manifest(Path("data/manifest.csv"))
    splits = load_splits(Path("data/splits.csv"))
    rows = make_train_rows(manifest, splits, params.split.val_fold)
    image_ids, labels = rows["image_id"].tolist(), rows["label"].tolist()
    listed = label_shuffle(image_ids, labels, params.label_shuffle.balance, params.seed)
    label_of = dict(zip(image_ids, labels, strict=True))
    report = make_label_shuffle_report(labels, [label_of[image_id] for image_id in listed])
    write_csv(Path("data/train_list.csv"), pd.DataFrame({"image_id": listed}))
    write_metrics(Path("metrics/label_shuffle.json"), report, ("rows",))
    print(
        f"{NAME}: {report['images']} images of {len(report['rows_per_class'])} classes -> "
        f"{report['rows']} training rows (val fold {params.split.val_fold} left out)"
    )


if __name__ == "__main__":
    run_stage(NAME, main)
