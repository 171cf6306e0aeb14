"""Stage eda: raw images and CSVs -> data/manifest.csv, data/problems.csv, reports/eda, metrics."""

from pathlib import Path

from podium.data.params import EdaParams, ListingParams
from podium.params import Params, Seed, load_params
from podium.report.eda import make_eda, make_summary, write_eda
from podium.report.eda_page import make_page
from podium.stage import run_stage

NAME = "eda"


class EdaStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    competition: ListingParams
    eda: EdaParams


def main() -> None:
    params = load_params(EdaStageParams)
    root = Path()
    eda = make_eda(root, params.competition, params.eda.on_problem, params.seed)
    write_eda(root, eda, make_page(root, params.competition.name, eda, params.seed))
    for line in make_summary(eda):
        print(f"{NAME}: {line}")


if __name__ == "__main__":
    run_stage(NAME, main)
