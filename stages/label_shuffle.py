"""Stage label_shuffle: manifest and splits -> data/train_list.csv (image_id, val_fold).

For each fold that is held out, the training list of all others; an image may be listed repeatedly.
"""

from pathlib import Path

from podium.data.label_shuffle import make_train_lists, write_train_lists
from podium.data.manifest import load_manifest
from podium.data.params import LabelShuffleParams, SplitParams
from podium.data.splits import load_splits
from podium.files import write_metrics
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
    lists, report = make_train_lists(
        manifest,
        splits,
        params.split.val_fold,
        params.label_shuffle.balance,
        params.seed,
    )
    write_train_lists(Path("data/train_list.csv"), lists)
    write_metrics(Path("metrics/label_shuffle.json"), report, ("rows",))
    print(
        f"{NAME}: {report['images']} images of {len(report['rows_per_class'])} classes -> "
        f"{report['rows']} training rows (held out: fold {', '.join(map(str, lists))})"
    )


if __name__ == "__main__":
    run_stage(NAME, main)
