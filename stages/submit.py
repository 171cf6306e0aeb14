"""Stage submit: test predictions -> submissions in the organiser's exact format, checked.

In: models/, deploy/, predictions/decoder.json, data/manifest.csv, the images, the sample submission.
Out: predictions/test.csv, submission.csv (the trained weights; the mean of several folds' models),
submission_compressed.csv (the model in deploy/), metrics/submit.json.
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.predictions import write_predictions
from podium.data.submission import check_submission, load_sample, make_submission
from podium.data.views import check_tta
from podium.engine.ensemble import Ensemble
from podium.engine.scoring import predict_test
from podium.files import write_bytes, write_metrics
from podium.params import Params, load_params
from podium.slim.deployment import Deployment
from podium.slim.size_limit import check_size_limit, describe_size_limit
from podium.stage import run_stage
from podium.tasks.answers import load_answers
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import make_data_task

NAME = "submit"


class SubmitStageParams(Params):
    """What this stage reads of params.yaml."""

    competition: CompetitionParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(SubmitStageParams)
    check_tta(params.evaluate.tta, params.competition.allow_tta)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        submission=params.competition.submission,
    )
    sample = load_sample(
        Path(params.competition.source),
        params.competition.sample_submission,
        params.competition.sample_header,
    )
    ensemble = Ensemble(Path("models"), params.evaluate.tta)
    deployment = Deployment(Path("deploy"))
    sizes = {
        "submission.csv": ensemble.size_bytes(),
        "submission_compressed.csv": deployment.size_bytes(),
    }
    size_report = check_size_limit(sizes, params.competition.max_model_mb)

    manifest = load_manifest(Path("data/manifest.csv"))
    test = manifest[manifest["source"] == "test"]
    size_px = ensemble.preprocessing.image_size_px
    probabilities = {
        "submission.csv": predict_test(
            manifest, size_px, lambda images: ensemble.run(images, "predict test"), task
        ),
        "submission_compressed.csv": predict_test(
            manifest, size_px, lambda images: [deployment.run_images(images, "predict test")], task
        ),
    }
    write_predictions(
        Path("predictions/test.csv"),
        test["image_id"].tolist(),
        probabilities["submission.csv"],
        task.classes,
    )
    answers = load_answers(Path("predictions/decoder.json"))
    submitted = {name: answers.apply(values) for name, values in probabilities.items()}
    for name, values in submitted.items():
        content = make_submission(test, values, task, sample)
        check_submission(content, test, task, sample)
        write_bytes(Path(name), content)
    full, compressed = submitted.values()
    report = {
        "rows": len(test),
        "unreadable": int((test["problem"] != "").sum()),
        "answers_changed_by_compression": int((full.argmax(1) != compressed.argmax(1)).sum()),
        **size_report,
    }
    write_metrics(Path("metrics/submit.json"), report, ("rows", "answers_changed_by_compression"))
    print(
        f"{NAME}: {report['rows']} rows, legal in both files; compression changes "
        f"{report['answers_changed_by_compression']} answers"
    )
    print(f"{NAME}: {describe_size_limit(size_report, params.competition.max_model_mb)}")


if __name__ == "__main__":
    run_stage(NAME, main)
