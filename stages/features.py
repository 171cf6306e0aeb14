"""Stage features: images -> what a frozen trunk sees in them, computed once.

In: data/manifest.csv and the images. Out: features/, empty of arrays unless model.freeze needs them.
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.engine.features import write_features
from podium.models.params import ModelParams
from podium.params import ImageSize, Params, load_params
from podium.stage import run_stage

NAME = "features"


class FeaturesStageParams(Params):
    """What this stage reads of params.yaml."""

    image_size: ImageSize
    model: ModelParams


def main() -> None:
    params = load_params(FeaturesStageParams)
    manifest = load_manifest(Path("data/manifest.csv"))
    done = write_features(
        Path("features"),
        manifest,
        params.model.name,
        params.model.pretrained,
        params.model.freeze,
        params.image_size,
    )
    print(f"{NAME}: {done}")


if __name__ == "__main__":
    run_stage(NAME, main)
