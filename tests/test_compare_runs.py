"""`podium compare`: runs out of git and DVC's cache, what is refused and why, what is printed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from podium.cli import main
from podium.errors import PodiumError, ProblemsError
from podium.tasks.answers import Answers
from podium.tasks.decoding import ClassWeights
from podium.trust import compare_page
from podium.trust.compare_report import compare_runs
from podium.trust.compare_runs import Runs
from tests.stored_runs import N, Repository, Written

ROOT = Path(__file__).resolve().parents[1]
BASE = Written().with_wrong(*range(20))
BETTER = Written().with_wrong(0, 1).with_params(train__ema=0.5)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A committed baseline in a folder with a space."""
    found = Repository(tmp_path / "a clone")
    found.commit(BASE, tags=["first"])
    return found


def call(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    repository: Repository,
    *words: str,
) -> tuple[int, str, str]:
    """`podium compare WORDS` in the repository: exit code, stdout, stderr."""
    monkeypatch.chdir(repository.root)
    with pytest.raises(SystemExit) as caught:
        main(["compare", *words])
    captured = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


# --- reading


def test_revision_experiment_and_workspace_are_read(repository: Repository) -> None:
    commit = repository.experiment("better", BETTER)
    repository.write(Written())
    runs = Runs(repository.root)
    for name, wrong in (
        ("HEAD", 20), ("first", 20), ("main", 20), ("better", 2), (commit[:9], 2), ("workspace", 0),
    ):  # fmt: skip
        run = runs.load(name)
        right = run.answers.apply([run.probabilities]).argmax(axis=1) == np.arange(N) % 2
        assert (~right).sum() == wrong, name
        assert run.rows["image_id"].tolist() == list(BASE.ids)
    assert runs.load("better").param("train.ema") == 0.5
    assert "competition.max_model_mb" not in runs.load("better").params  # no predictions came of it


def test_probabilities_are_read_exactly(repository: Repository) -> None:
    draw = np.random.default_rng(0)
    values = draw.dirichlet(np.ones(2), N)
    frame = BASE.predictions()
    frame[["p_cat", "p_dog"]] = values
    run = replace(BASE)
    object.__setattr__(run, "predictions", lambda: frame)
    repository.write(run)
    assert (Runs(repository.root).load("workspace").probabilities == values).all()


def test_only_the_cache_is_needed(repository: Repository) -> None:
    repository.experiment("better", BETTER)
    shutil.rmtree(repository.root / "predictions")
    (repository.root / "data/manifest.csv").unlink()
    assert len(Runs(repository.root).load("better").rows) == N


def test_an_experiment_is_not_the_branch_of_its_name(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    repository.git("branch", "better", "HEAD")
    assert "+18 -0" in call(capsys, monkeypatch, repository, "--all")[1]


def test_cache_may_stand_elsewhere(repository: Repository, tmp_path: Path) -> None:
    repository.experiment("better", BETTER)
    (repository.root / ".dvc/cache").rename(tmp_path / "elsewhere")
    (repository.root / ".dvc/config.local").write_text("[cache]\n    dir = ../../elsewhere\n")
    assert len(Runs(repository.root).load("better").rows) == N


def test_nothing_that_a_run_left_is_one_line(repository: Repository) -> None:
    cached = repository.write(BETTER)
    repository.experiment("better", BETTER)
    repository.write(BASE)
    path = cached["predictions/val.csv"]
    path.write_text("edited")
    with pytest.raises(
        PodiumError, match=r"^better: predictions/val.csv \(MD5 \w+\) is damaged in "
    ):
        Runs(repository.root).load("better")
    path.unlink()
    with pytest.raises(PodiumError, match=r"is not in DVC's cache .*dvc fetch") as caught:
        Runs(repository.root).load("better")
    assert "\n" not in str(caught.value)


def test_names_that_mean_nothing(repository: Repository) -> None:
    repository.experiment("better", BETTER)
    with pytest.raises(PodiumError, match="no run 'beter'.*did you mean 'better'"):
        Runs(repository.root).load("beter")
    for name in ("", "--help", "HEAD:dvc.lock", "first..main", "exec/EXEC_HEAD"):
        with pytest.raises(PodiumError, match="no run "):
            Runs(repository.root).load(name)


def test_one_name_for_several_experiments(repository: Repository) -> None:
    old = repository.experiment("again", BETTER)
    repository.commit(BASE.with_params(lr=0.1))
    middle = repository.experiment("again", BASE)
    runs = Runs(repository.root)
    assert runs.resolve("again") == middle  # as DVC: HEAD's own
    assert {name for name, _ in runs.experiments()} == {old[:10], middle[:10]}
    repository.commit(BASE.with_params(lr=0.2))
    with pytest.raises(PodiumError, match=f"2 experiments: say .*{old[:10]}"):
        Runs(repository.root).resolve("again")


def test_refs_of_dvcs_own_are_no_experiments(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD")
    for ref in ("exec/EXEC_HEAD", "stash", "celery/stash", "apply/ORIG_HEAD"):
        repository.git("update-ref", f"refs/exps/{ref}", head)
    assert Runs(repository.root).experiments() == []


def test_outside_git(repository: Repository) -> None:
    shutil.rmtree(repository.root / ".git")
    with pytest.raises(PodiumError, match="in no git repository"):
        Runs(repository.root).load("HEAD")
    assert len(Runs(repository.root).load("workspace").rows) == N


def test_edited_predictions_are_refused(repository: Repository) -> None:
    with (repository.root / "predictions/val.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(PodiumError, match=r"workspace: predictions/val.csv is not what dvc.lock"):
        Runs(repository.root).load("workspace")
    Runs(repository.root).load("HEAD")  # the commit is as it was


def test_params_edited_since_the_run_are_said(repository: Repository) -> None:
    path = repository.root / "params.yaml"
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.5"))
    run = Runs(repository.root).load("workspace")
    assert run.param("lr") == 0.001
    assert run.notes == (
        "workspace: params.yaml has other values of lr than its last run had; what is compared here "
        "is that run",
    )


def test_half_a_repro_is_refused(repository: Repository) -> None:
    yaml, lock = YAML(typ="safe"), repository.root / "dvc.lock"
    content = yaml.load(lock.read_text())
    content["stages"]["evaluate"]["deps"][0]["md5"] = "f" * 32
    with lock.open("w") as stream:
        yaml.dump(content, stream)
    with pytest.raises(PodiumError, match=r"workspace stopped half-way: data/manifest.csv has"):
        Runs(repository.root).load("workspace")


def test_stages_of_several_seeds_are_refused(repository: Repository) -> None:
    lock = repository.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("seed: 0", "seed: 1", 1))
    with pytest.raises(
        PodiumError, match="workspace stopped half-way: stage evaluate ran with seed"
    ):
        Runs(repository.root).load("workspace")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no dvc.lock"),
        ("schema: '2.0'\n", "has no predictions"),
        ("stages: [", "not valid YAML"),
        ("schema: '2.0'\nstages:\n  evaluate:\n    cmd: x\n", "has no data/manifest.csv"),
    ],
)
def test_nothing_has_run(repository: Repository, content: str | None, words: str) -> None:
    lock = repository.root / "dvc.lock"
    lock.unlink()
    if content is not None:
        lock.write_text(content)
    with pytest.raises(PodiumError, match=words) as caught:
        Runs(repository.root).load("workspace")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: "", "predictions/val.csv is damaged"),
        (lambda text: text.replace("0.9", "high", 1), "could not convert string to float"),
        (lambda text: text + text.splitlines()[1] + "\n", "expected each image of"),
        (lambda text: text.replace("img/003", "img/xyz"), "expected each image of"),
        (lambda text: text.splitlines()[0] + "\n", "expected each image of"),
        (
            lambda text: text.replace(",fold", ",part"),
            "has no fold: that run is of another version",
        ),
    ],
    ids=["empty", "no number", "twice", "unknown", "no rows", "no fold"],
)
def test_predictions_that_dvc_keeps_but_no_stage_wrote(
    repository: Repository, edit: Callable[[str], str], words: str
) -> None:
    path = repository.root / "predictions/val.csv"
    old = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    path.write_text(edit(path.read_text()))
    new = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    lock = repository.root / "dvc.lock"
    lock.write_text(lock.read_text().replace(old, new))
    with pytest.raises(PodiumError, match=words) as caught:
        Runs(repository.root).load("workspace")
    assert str(caught.value).startswith("workspace: ")


# --- what is compared


def load_pair(repository: Repository, after: Written):
    repository.write(after)
    runs = Runs(repository.root)
    return runs.load("HEAD"), runs.load("workspace")


def test_decoded_labels_are_what_is_compared(repository: Repository) -> None:
    """A decoder that says dog whenever it may: half of the answers change, the probabilities do not."""
    always_dog = Answers(decoder=ClassWeights((0.0, 9.0)))
    result = compare_runs(*load_pair(repository, replace(Written(), answers=always_dog)))
    by_name = {change.spec.name: change for change in result.comparison.changes}
    assert by_name["accuracy"].after == 0.5
    assert by_name["log_loss"].after == pytest.approx(-np.log(0.9))
    assert result.sides[1].labels.tolist() == [1] * N


def test_temperature_counts_in_the_log_loss(repository: Repository) -> None:
    result = compare_runs(*load_pair(repository, replace(BASE, answers=Answers(temperature=2.0))))
    by_name = {change.spec.name: change for change in result.comparison.changes}
    assert by_name["accuracy"].difference == 0
    assert by_name["log_loss"].difference < 0  # half of the answers are wrong and were too sure


def test_the_baselines_primary_metric_decides(repository: Repository) -> None:
    log_loss = {"evaluate": {"primary": "log_loss", "bootstrap_draws": 100}}
    repository.commit(replace(BASE, params=log_loss))
    result = compare_runs(*load_pair(repository, BETTER))
    assert result.comparison.primary.spec.name == "log_loss"
    assert (result.comparison.word, result.comparison.primary.difference < 0) == ("better", True)
    assert ("evaluate.primary", "log_loss", "accuracy") in result.changed_params


def test_changed_params_and_code_are_listed(repository: Repository) -> None:
    after = replace(BETTER.with_params(lr=0.002), code="2" * 32)
    result = compare_runs(*load_pair(repository, after))
    assert result.changed_params == [("lr", "0.001", "0.002"), ("train.ema", "not there", "0.5")]
    assert result.changed_inputs == ["src/podium/engine"]


# --- what is refused


SHORTER = replace(BASE, ids=BASE.ids[:30])
OTHER_CLASSES = replace(BASE, classes=("cat", "dog", "cow"))


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (SHORTER, r"10 images only in HEAD: img/030.png, img/031.png, img/032.png and 7 more"),
        (BASE.change("ids", 3, "img/new.png"), r"1 image only in workspace: img/new.png"),
        (BASE.change("labels", 3, "cat"), r"another label in 1 image: img/003.png \(dog against cat\)"),
        (replace(BASE, fold=1), r"another held-out fold in 40 images: img/000.png \(0 against 1\)"),
        (BASE.change("soft_labels", 3, "0.4 0.6"), r"another soft label in 1 image: img/003.png"),
        (BASE.change("pixels", 5, "x"), r"other pixels in 1 image: img/005.png"),
        (BASE.change("groups", 5, "g004"), r"another group in 1 image: img/005.png"),
        (OTHER_CLASSES, r"competition.classes: 1 only in workspace: cow"),
        (replace(BASE, classes=("dog", "cat")), r"the same classes in another order"),
        (BASE.with_params(competition__ordinal=True), r"competition.ordinal: False against True"),
        (BASE.with_params(competition__task="counting"), r"competition.task: classification against"),
    ],
    ids=[
        "fewer", "id", "label", "fold", "soft", "pixels", "group", "class", "order", "ordinal", "task",
    ],
)  # fmt: skip
def test_other_val_sets_are_refused_with_what_differs(
    repository: Repository, after: Written, problem: str
) -> None:
    with pytest.raises(ProblemsError, match=problem) as caught:
        compare_runs(*load_pair(repository, after))
    assert re.match(
        r"HEAD \(\d+ images\) and workspace .* not judged on the same", str(caught.value)
    )


def test_a_refusal_says_what_may_be_why(repository: Repository) -> None:
    after = replace(BASE, fold=1).with_params(split__val_fold=1)
    with pytest.raises(ProblemsError, match="this may be why: split.val_fold: None against 1"):
        compare_runs(*load_pair(repository, after))


# --- the command


def test_two_runs_on_a_terminal_and_as_a_page(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    code, out, _ = call(capsys, monkeypatch, repository, "HEAD", "better", "--fail-if", "worse")
    assert code == 0
    assert out.startswith("better against HEAD: better (accuracy +0.4500, 95 %: ")
    assert "40 val images: 18 turned right, 0 turned wrong (McNemar's exact p 8e-06)" in out
    assert "param train.ema: not there -> 0.5" in out
    assert "the images: .podium/compare/HEAD..better.html" in out
    page = (repository.root / ".podium/compare/HEAD..better.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 18
    assert "img/019.png" in page
    assert "http" not in page.replace("http-equiv", "")
    again = call(capsys, monkeypatch, repository, "HEAD", "better")
    assert again[1] == out
    assert (repository.root / ".podium/compare/HEAD..better.html").read_text() == page


def test_worse_sets_the_exit_code_where_that_is_asked_for(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    code, out, _ = call(capsys, monkeypatch, repository, "better", "HEAD", "--fail-if", "worse")
    assert (code, "HEAD against better: worse" in out) == (1, True)
    assert call(capsys, monkeypatch, repository, "better", "HEAD")[0] == 0
    assert call(capsys, monkeypatch, repository, "HEAD", "HEAD", "--fail-if", "worse")[0] == 0
    assert call(capsys, monkeypatch, repository, "--all", "better", "--fail-if", "worse")[0] == 2
    repository.experiment("bad", BASE.with_wrong(*range(30)))
    code, out, _ = call(capsys, monkeypatch, repository, "--all", "better", "--fail-if", "worse")
    assert (code, "worse" in out) == (1, True)


def test_markdown(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    code, out, _ = call(
        capsys, monkeypatch, repository, "HEAD", "better", "--md", "--html", "out/page.html"
    )
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("**better against HEAD: better (accuracy +0.4500")
    assert lines[2:4] == ["| metric | HEAD | better | difference | 95 % |", "|---|---|---|---|---|"]
    assert all(line.startswith("- ") for line in lines[10:])
    assert (repository.root / "out/page.html").exists()


def test_pictures_that_are_gone_or_others_by_now_are_not_shown(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    raw = repository.root / "data/raw/img"
    (raw / "005.png").unlink()
    (raw / "006.png").write_bytes((raw / "007.png").read_bytes())
    call(capsys, monkeypatch, repository, "HEAD", "better", "--html", "page.html")
    page = (repository.root / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 16
    assert page.count("not in this workspace") == 2


def test_many_changed_images_are_listed_but_not_all_shown(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    monkeypatch.setattr(compare_page, "PICTURES_SHOWN", 5)
    call(capsys, monkeypatch, repository, "HEAD", "better", "--html", "page.html")
    page = (repository.root / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert "13 more, without picture" in page
    for number in range(2, 20):
        assert f"img/{number:03d}.png" in page


def test_names_from_outside_are_text_in_the_page(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment(
        "better", BETTER.with_params(competition__name="<script>alert(1)</script>")
    )
    call(capsys, monkeypatch, repository, "better", "HEAD", "--html", "page.html")
    assert "<script>" not in (repository.root / "page.html").read_text()


def test_all_experiments_against_one_baseline(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("better", BETTER)
    repository.experiment("luck", BASE.with_wrong(20).with_params(lr=0.002))
    repository.experiment("other-fold", replace(BASE, fold=1))
    lost = repository.write(replace(BASE, params={"lr": 0.3}).with_wrong(33))
    repository.experiment("lost", replace(BASE, params={"lr": 0.3}).with_wrong(33))
    lost["predictions/val.csv"].unlink()
    repository.write(BASE)
    code, out, _ = call(capsys, monkeypatch, repository, "--all")
    assert code == 0
    assert out.startswith("2 of 4 experiments against HEAD\n")
    rows = [
        line.split() for line in out.splitlines() if line.strip().startswith(("better", "luck"))
    ]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [
        ("better", "better", "train.ema=0.5"),
        ("luck", "noise", "lr=0.002"),
    ]
    assert "+18 -0" in out
    assert "corrected for 2 comparisons (Holm)" in out
    assert "left out: other-fold: another val set: another held-out fold in 40 images" in out
    assert "left out: lost: predictions/val.csv (MD5 " in out
    assert "| run | accuracy |" in call(capsys, monkeypatch, repository, "--all", "HEAD", "--md")[1]


def test_the_more_are_tried_the_more_it_takes(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven of seven images turned right: p 0.016 alone, and nothing beside nine others."""
    repository.experiment("seven", Written().with_wrong(*range(13)).with_params(lr=0.1))
    assert ": better" in call(capsys, monkeypatch, repository, "HEAD", "seven")[1]
    for number in range(9):
        wrong = BASE.with_wrong(21 + number).with_params(lr=0.2 + number)
        repository.experiment(f"try{number}", wrong)
    out = call(capsys, monkeypatch, repository, "--all")[1]
    (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("seven")]
    assert row[-2:] == ["noise", "lr=0.1"]
    assert row[-3] == "0.16"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected two runs, as `podium compare HEAD workspace`, got 0"),
        (("HEAD",), "got 1"),
        (("a", "b", "c"), "got 3"),
        (("--all", "a", "b"), "takes one run, the baseline"),
        (("--all", "--html", "x.html"), "writes no page"),
        (("--all",), "no experiments to compare with HEAD"),
        (
            ("HEAD", "workspace", "--html", "."),
            "--html .: expected the path of a file, got a folder",
        ),
        (("HEAD", "nothing"), "no run 'nothing'"),
    ],
)
def test_wrong_words_are_one_line(
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    code, out, err = call(capsys, monkeypatch, repository, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_no_tensors_and_none_of_dvcs_machinery(repository: Repository) -> None:
    """Their imports would take longer than all the rest."""
    repository.experiment("better", BETTER)
    script = (
        "import sys; from pathlib import Path; from podium.commands.compare import compare_two; "
        "compare_two(Path('.'), 'HEAD', 'better', False, None, False); "
        "print([name for name in ('paddle', 'scipy.stats', 'dvc.repo', 'albumentations', 'cv2') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository.root, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
