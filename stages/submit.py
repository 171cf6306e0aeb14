"""Stage submit: test predictions -> submissions in the organiser's exact format, each rule proven.

In: models/, deploy/, predictions/decoder.json, metrics/evaluate.json, data/manifest.csv, the images,
the sample submission.
Out: predictions/test.csv, submission.csv (the trained weights; the mean of several folds' models where
the rules allow it), submission_compressed.csv (the model in deploy/), contract.json (each rule, kept or
broken), metrics/submit.json; where the rules have a limit, how long deploy/ takes for an image goes to
metrics/measured/answer_time.json.
"""

from dataclasses import replace
from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.predictions import write_predictions
from podium.data.rules import check_tta
from podium.data.submission import doubt_values, load_sample, make_submission, prove_format
from podium.data.views import parse_tta
from podium.engine.ensemble import Ensemble
from podium.engine.scoring import predict_test
from podium.engine.weights import settle_tta
from podium.files import write_bytes, write_json, write_metrics
from podium.params import Params, load_params
from podium.slim.deployment import Deployment
from podium.stage import MEASURED, run_stage
from podium.tasks.answers import Answers, load_answers
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import make_data_task
from podium.trust.contract.answer_time import measure_answer_time
from podium.trust.contract.verdict import (
    BYTES_PER_MB,
    CONTRACT_FILE,
    Making,
    Submission,
    check_any_legal,
    describe_breaches,
    describe_contract,
    judge_format,
    judge_making,
    load_contract,
    load_metrics,
    pick_val,
    write_contract,
)

NAME = "submit"
FULL, COMPRESSED = "submission.csv", "submission_compressed.csv"


class SubmitStageParams(Params):
    """What this stage reads of params.yaml."""

    competition: CompetitionParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(SubmitStageParams)
    rules = params.competition.rules
    for name in (FULL, COMPRESSED, CONTRACT_FILE):
        Path(name).unlink(missing_ok=True)  # of an earlier run: proves nothing about this one
    check_tta(params.evaluate.tta, rules.tta)
    tta = settle_tta(params.evaluate.tta, Path("models"), rules.tta)
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
    ensemble = Ensemble(Path("models"), tta, one=not rules.ensembling)
    deployment = Deployment(Path("deploy"))
    deployed_tta = parse_tta(deployment.card.get("tta", "none"), "deploy/card.json")
    size_px = ensemble.preprocessing.image_size_px
    latency_ms = None
    if rules.max_latency_ms is not None:
        measured = measure_answer_time(deployment.run_images, size_px)
        write_json(MEASURED / "answer_time.json", measured)
        latency_ms = measured["answer_p50_ms"]
        print(f"{NAME}: deploy/ takes {latency_ms:.2f} ms an image, limit {rules.max_latency_ms:g}")
    made = {
        FULL: Making.from_cards(ensemble.cards, tta, ensemble.size_bytes()),
        COMPRESSED: Making.from_cards(
            [deployment.card], deployed_tta, deployment.size_bytes(), latency_ms
        ),
    }
    metric = rules.metric or params.evaluate.primary
    found_answers = load_answers(Path("predictions/decoder.json"))
    if params.competition.submission == "label":
        # It is of no use to labels, and where several nets disagree it would change some, unjudged.
        found_answers = replace(found_answers, temperature=1.0)
    # What was fitted on the trained net's answers is not for those of a student.
    answers = {
        FULL: found_answers,
        COMPRESSED: found_answers if deployment.has_trained_net else Answers(),
    }
    if answers[COMPRESSED] != found_answers:
        print(f"{NAME}: {COMPRESSED} is of another net: without the decoder and temperature")
    metrics = {
        FULL: load_metrics(Path("metrics/evaluate.json")),
        COMPRESSED: deployment.card["measured"],
    }
    val = {
        name: pick_val(found, metric, answers[name], params.evaluate.primary)
        for name, found in metrics.items()
    }

    manifest = load_manifest(Path("data/manifest.csv"))
    test = manifest[manifest["source"] == "test"]
    predictions = {
        FULL: predict_test(
            manifest,
            size_px,
            lambda images: ensemble.run(images, "predict test"),
            task,
            answers[FULL],
        ),
        COMPRESSED: predict_test(
            manifest,
            size_px,
            lambda images: [deployment.run_images(images, "predict test")],
            task,
            answers[COMPRESSED],
        ),
    }
    write_predictions(
        Path("predictions/test.csv"),
        test["image_id"].tolist(),
        predictions[FULL].raw,
        task.classes,
    )
    submitted = {name: found.submitted for name, found in predictions.items()}
    doubt = doubt_values(test, task, sample)
    submissions = []
    for name, values in submitted.items():
        content = make_submission(test, values, task, sample)
        lines = (
            *judge_making(
                rules,
                made[name],
                primary=params.evaluate.primary,
                classes=params.competition.classes,
                ordinal=params.competition.ordinal,
                submission=params.competition.submission,
            ),
            *judge_format(prove_format(content, test, task, sample), doubt),
        )
        submissions.append(Submission(name, content, lines, val[name]))
    write_contract(CONTRACT_FILE, submissions)
    check_any_legal(submissions)
    for one in submissions:
        write_bytes(Path(one.name), one.file_content)
    full, compressed = submitted.values()
    report = {
        "rows": len(test),
        "unreadable": int((test["problem"] != "").sum()),
        "answers_changed_by_compression": int((full.argmax(1) != compressed.argmax(1)).sum()),
        **{
            one.name: {
                "model_mb": round(made[one.name].model_bytes / BYTES_PER_MB, 3),
                "may_be_handed_in": not one.broken,
            }
            for one in submissions
        },
    }
    write_metrics(Path("metrics/submit.json"), report, ("rows", "answers_changed_by_compression"))
    print(
        f"{NAME}: {report['rows']} rows; compression changes "
        f"{report['answers_changed_by_compression']} answers"
    )
    for one in submissions:
        verdict = f"not to be handed in: {describe_breaches(one)}" if one.broken else "legal"
        print(f"{NAME}: {one.name}: {verdict}")
    print(f"{NAME}: {describe_contract(load_contract(CONTRACT_FILE))}")


if __name__ == "__main__":
    run_stage(NAME, main)
