"""Stage split: data/manifest.csv -> data/splits.csv (image_id, fold)."""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import DataParams, SplitParams
from podium.data.splits import describe_gaps, make_split_report, make_splits
from podium.files import write_csv, write_metrics
from podium.params import Params, Seed, load_params
from podium.stage import run_stage

NAME = "split"


class SplitStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    data: DataParams
    split: SplitParams


def main() -> None:
    params = load_params(SplitStageParams)
    manifest = load_manifest(Path("data/manifest.csv"))
    train = manifest[manifest["source"] == "train"]
    splits = make_splits(train, params.split.folds, params.seed, params.data.subset)
    report = make_split_report(train, splits)
    write_csv(Path("data/splits.csv"), splits)
    write_metrics(Path("metrics/split.json"), report, ("n_images", "max_class_share_deviation"))
    sizes = ", ".join(str(size) for size in report["fold_sizes"].values())
    print(f"{NAME}: {len(splits)} of {len(train)} training images in folds of {sizes}")
    for line in describe_gaps(report):
        print(f"{NAME}: {line}")


if __name__ == "__main__":
    run_stage(NAME, main)
