"""Stage audit: what a score may hide -> reports/audit, metrics.

In: data/manifest.csv, data/splits.csv, models/, predictions/val.csv, reports/eda/probes.csv, the images.
Out: metrics/audit.json, reports/audit/ (page, findings, candidates for data/relabel.csv, sheets).
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.splits import load_splits
from podium.params import Params, Seed, load_params
from podium.stage import run_stage
from podium.tasks.table import make_data_task
from podium.trust.audit.case import load_case
from podium.trust.audit.doctor import audit
from podium.trust.audit.report import make_summary, write_audit

NAME = "audit"


class AuditStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    competition: CompetitionParams


def main() -> None:
    params = load_params(AuditStageParams)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
    )
    case = load_case(
        Path("models"),
        load_manifest(Path("data/manifest.csv")),
        load_splits(Path("data/splits.csv")),
        task,
        params.seed,
    )
    found = audit(case)
    write_audit(Path(), params.competition.name, found)
    for line in make_summary(found):
        print(f"{NAME}: {line}")


if __name__ == "__main__":
    run_stage(NAME, main)
