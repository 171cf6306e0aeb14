"""Stage features: images -> what a frozen trunk sees in them, computed once.

In: data/manifest.csv, the images, the trunk's initial weights. Out: features/, empty of arrays where
nothing is frozen; the hash of those weights and the mirrors that the training uses in any case.
"""

from pathlib import Path

from podium.data.image_cache import readable_rows
from podium.data.image_size import choose_image_size
from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.recipes import ImageRecipes
from podium.data.rules import check_start
from podium.engine.features import AUTO, FeatureRecipe, write_features
from podium.engine.mirrors import find_mirrors
from podium.engine.params import TrainParams
from podium.engine.phases import (
    check_image_recipes,
    count_views,
    describe_last_size,
    make_plan,
)
from podium.engine.refusals import check_params
from podium.models.initial_weights import load_initial_weights
from podium.models.params import ModelParams
from podium.params import ChosenImageSize, Epochs, Params, Seed, load_params
from podium.stage import run_stage
from podium.tasks.classification.params import EvaluateParams

NAME = "features"


class FeaturesStageParams(Params):
    """What this stage reads of params.yaml; epochs and evaluate only for `check_params`."""

    seed: Seed
    epochs: Epochs
    image_size: ChosenImageSize
    competition: CompetitionParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(FeaturesStageParams)
    check_params(params)
    # By name, so that this stage looks again when a rule changes; not in train as well, which would
    # train again for a rule that is obeyed anyway.
    check_start(
        params.model.pretrained,
        params.model.weights,
        params.competition.rules.pretrained,
        params.competition.rules.external_data,
    )
    start = load_initial_weights(
        params.model.name,
        params.model.pretrained,
        params.model.weights,
        params.model.allow_download,
    )
    # One by one: mixup and cutmix are no business of this stage.
    recipes = ImageRecipes(
        autoaugment=params.train.recipes.autoaugment,
        randaugment=params.train.recipes.randaugment,
        cutout=params.train.recipes.cutout,
        random_erasing=params.train.recipes.random_erasing,
        hide_and_seek=params.train.recipes.hide_and_seek,
        grid_mask=params.train.recipes.grid_mask,
    )
    manifest = load_manifest(Path("data/manifest.csv"))
    rows = readable_rows(manifest, "train")
    size_px = choose_image_size(params.image_size, rows)
    plan = make_plan(
        params.model.freeze,
        start is not None,
        params.train.unfreeze,
        params.train.size_schedule,
        size_px,
    )
    differs = describe_last_size(plan, size_px)
    if differs:
        print(f"{NAME}: {differs}", flush=True)
    views = count_views(plan, params.train.views, len(rows))
    check_image_recipes(plan, recipes, views)
    mirrors = None
    if params.train.flip == AUTO:
        mirrors = find_mirrors(rows, size_px, params.seed, params.competition.rules.pretrained)
        print(f"{NAME}: train.flip auto is {mirrors}", flush=True)
    recipe = FeatureRecipe(
        trunk=params.model.name,
        pretrained=params.model.pretrained,
        top_layers=params.model.top_layers,
        views=views,
        augment=params.train.augment,
        flip=mirrors.flip if mirrors else params.train.flip,
        seed=params.seed,
        recipes=recipes,
        start=start,
    )
    figures = mirrors.to_json() if mirrors else None
    done = write_features(Path("features"), manifest, plan, recipe, size_px, figures)
    print(f"{NAME}: {done}")


if __name__ == "__main__":
    run_stage(NAME, main)
