"""`podium certify`: is a result reproducible? The DAG run four times, every declared output compared.

In: the repository's last commit and the raw data. Out: certificate.json and certificate.html in a
folder that no stage and no commit knows, and an exit code.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from podium.certify.certificate import (
    Certificate,
    Given,
    Outcome,
    find_unlike,
    load_certificate,
    make_certificate,
    read_given,
    read_outcome,
)
from podium.certify.clones import check_committed, make_clone
from podium.certify.comparison import (
    Comparison,
    compare,
    describe_loss,
    explain,
)
from podium.certify.page import make_certificate_page, make_recheck_page
from podium.certify.running import Say, describe_kill, run_trial
from podium.certify.tolerances import Check, Tolerances, compare_loosely
from podium.certify.trials import REFERENCE, TRIALS, Trial
from podium.dag import load_stages
from podium.errors import PodiumError
from podium.files import write_json, write_text
from podium.git_facts import find_changes, read_revision
from podium.runtime import available_cores, cpu_class

OUTPUT = Path(".podium/certificate")
# Of the demo this is minutes for four runs; every stage and every kind of step is in it.
SMALL: Mapping[str, Any] = {
    "data.subset": 0.25,
    "epochs": 4,
    "image_size": 64,
    "train.views": 2,
    "compress.calibration_images": 32,
}
SAME, DIFFERENT, WITHIN = "same", "different", "within tolerances"


@dataclass(frozen=True)
class Options:
    """How to certify.

    Attributes:
        overrides: params that differ from the committed ones, by dotted name.
        output: folder of the certificate.
        jobs: runs side by side.
        keep: leave the clones, and say where.
    """

    overrides: Mapping[str, Any] = field(default_factory=lambda: dict(SMALL))
    output: Path = OUTPUT
    jobs: int = 2
    keep: bool = False


def certify(root: Path, options: Options, trials: Sequence[Trial] = TRIALS) -> int:
    """Run all trials, compare them with the first, write the certificate.

    Args:
        root: a git repository with at least one commit.
        options: how.
        trials: the runs; the first is the reference.

    Returns:
        0 when all declared outputs and all losses are the same, else 1.

    Raises:
        PodiumError: no commit, no data, wrong params, or a run that failed.
    """
    about = _About(root)
    _announce(root, options)
    if available_cores() == 1 and any(trial.cores for trial in trials):
        print("note: one core is all there is here, so no other number of cores is tried")
    with scratch_folder(options.keep) as scratch:
        given, outcomes = run_all(root, scratch, options, trials)
        stages = list(load_stages(scratch / trials[0].folder))
    reference = outcomes[0]
    runs, lines, verdict = [], [], SAME
    for trial, outcome in zip(trials, outcomes, strict=True):
        compared = _compare(reference, outcome, stages)
        is_reference = outcome is reference
        if not compared.is_same:
            verdict = DIFFERENT
        said = explain(trial.name, compared)
        if not is_reference or not compared.is_same:
            lines.append(said)
        runs.append(_make_row(trial, outcome, None if is_reference else compared, said))
    certificate = make_certificate(
        given,
        options.overrides,
        reference,
        runs,
        verdict,
        Tolerances(),
        about.measure(),
    )
    for line in lines:
        print(line)
    _write(options.output, "certificate", certificate, make_certificate_page(certificate))
    return 0 if verdict == SAME else 1


def recheck(root: Path, path: Path, options: Options) -> int:
    """Run once here, compare with a certificate, write recheck.json and recheck.html.

    Bytes where the class of CPUs is the certificate's; else its tolerances.

    Args:
        root: as in `certify`.
        path: of the certificate; its overrides are used.
        options: output and keep are.

    Returns:
        0 when it is the same or within the tolerances, else 1.

    Raises:
        PodiumError: as in `certify`; no certificate; other params or data.
    """
    about = _About(root)
    certificate = load_certificate(path)
    content = certificate.content
    options = Options(dict(content["overrides"]), options.output, 1, options.keep)
    _announce(root, options)
    same_class = content["cpu_class"] == cpu_class()
    with scratch_folder(options.keep) as scratch:
        clone = scratch / REFERENCE.folder
        make_clone(root, clone, options.overrides, check_committed(root))
        given = read_given(clone)
        unlike = find_unlike(content, given)
        for line in unlike:
            print(f"note: {line} than the certificate's", flush=True)
        stages = list(load_stages(clone))
        _check_stages(certificate, stages)
        _, (outcome,) = run_all(root, scratch, options, (REFERENCE,), given)
    compared = compare(
        certificate.hashes, outcome.hashes, certificate.losses, outcome.running.losses, stages
    )
    checks = [] if same_class else _check_loosely(certificate, outcome)
    verdict = judge(compared, checks, same_class)
    said = explain("here", compared)
    result = {
        "format": content["format"],
        "verdict": verdict,
        "certificate": {key: content[key] for key in ("competition", "cpu_class", "measured")},
        "cpu_class": given.cpu_class,
        "compared_by": "bytes" if same_class else "tolerances",
        "unlike": unlike,
        "tolerances": asdict(certificate.tolerances),
        "run": _make_row(REFERENCE, outcome, compared, said),
        "checks": [{**asdict(check), "passes": check.passes} for check in checks],
        "scores": {"certificate": content["scores"], "here": dict(outcome.scores)},
        "given": dict(given.facts),
        "measured": about.measure(),
    }
    print(said)
    for check in checks:
        word = "within " if check.passes else "OUTSIDE"
        print(f"{word}  {check.what}: {check.difference:.4g}, allowed {check.allowed:g}")
    print(f"{verdict}: CPU class {given.cpu_class}, the certificate's {content['cpu_class']}")
    _write(options.output, "recheck", result, make_recheck_page(result))
    return 0 if verdict in (SAME, WITHIN) else 1


def judge(compared: Comparison, checks: Sequence[Check], same_class: bool) -> str:
    """The word for a check against a certificate."""
    if compared.is_same:
        return SAME
    if same_class or not checks or not all(check.passes for check in checks):
        return DIFFERENT
    return WITHIN


def _check_loosely(certificate: Certificate, outcome: Outcome) -> list[Check]:
    content = certificate.content
    return compare_loosely(
        (certificate.hashes, outcome.hashes),
        (content["scores"], outcome.scores),
        (content["predictions"], outcome.predictions),
        content["exact"],
        certificate.tolerances,
    )


def _check_stages(certificate: Certificate, stages: Sequence[str]) -> None:
    unknown = sorted({stage for stage, _ in certificate.hashes} - set(stages))
    if unknown:
        raise PodiumError(
            f"the certificate has a stage {unknown[0]!r}, which dvc.yaml here has not: check out its "
            f"revision {certificate.content['measured'].get('revision')}"
        )


def _announce(root: Path, options: Options) -> None:
    check_committed(root)
    if options.jobs < 1:
        raise PodiumError(f"--jobs: expected 1 or more, got {options.jobs}")
    changed = find_changes(root)
    if changed:
        more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
        print(f"not in the check, because not committed: {', '.join(changed[:10])}{more}")
    shown = ", ".join(f"{name}={value}" for name, value in options.overrides.items())
    print(f"params as committed{f', but {shown}' if shown else ''}", flush=True)


@contextlib.contextmanager
def scratch_folder(keep: bool) -> Iterator[Path]:
    """A folder for the clones, removed in the end unless they are to be kept."""
    path = Path(tempfile.mkdtemp(prefix="podium-certify-"))
    try:
        yield path
    finally:
        if keep:
            print(f"the clones are in {path}")
        else:
            shutil.rmtree(path)


def run_all(
    root: Path,
    scratch: Path,
    options: Options,
    trials: Sequence[Trial],
    given: Given | None = None,
) -> tuple[Given, list[Outcome]]:
    """Make the clones that are not there yet, run the trials, `jobs` side by side.

    Args:
        root: a git repository with a commit.
        scratch: where the clones stand.
        options: overrides, jobs and keep are used.
        trials: the runs.
        given: what the first was given, where its clone is there.

    Returns:
        what the first was given; an outcome each.
    """
    revision = check_committed(root)
    _check_disk(root, scratch, len(trials))
    for trial in trials:
        if given is None or trial is not trials[0]:
            earlier = scratch / trials[0].folder if given else None
            make_clone(root, scratch / trial.folder, options.overrides, revision, earlier)
            given = given or read_given(scratch / trial.folder)
    assert given is not None
    stop = threading.Event()
    with ThreadPoolExecutor(options.jobs) as pool:

        def run(trial: Trial) -> Outcome:
            clone = scratch / trial.folder
            say = _sayer(trial)
            running = run_trial(clone, trial, say, stop)
            kills = "".join(f"; killed: {describe_kill(kill)}" for kill in running.kills)
            say(f"done in {running.seconds:.0f} s on {running.cores} cores{kills}")
            outcome = read_outcome(clone, running)
            if not options.keep and trial is not trials[0]:
                shutil.rmtree(clone)
            return outcome

        try:
            futures = [pool.submit(run, trial) for trial in trials]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return given, [future.result() for future in futures]
        except BaseException:  # Ctrl-C, too: the pool waits for its threads, and these stop
            stop.set()
            for future in futures:
                future.cancel()
            raise


def _check_disk(root: Path, scratch: Path, copies: int) -> None:
    """Raises PodiumError where the clones would not fit: each holds the data twice, with its cache."""
    free = shutil.disk_usage(scratch).free
    size = sum(path.stat().st_size for path in (root / "data").rglob("*") if path.is_file())
    needed = copies * (2 * size + 3 * 10**8)
    if free < needed:
        raise PodiumError(
            f"{free / 1e9:.1f} GB free in {scratch.parent}, {copies} clones may need "
            f"{needed / 1e9:.1f} GB: free some, or set TMPDIR to another disk"
        )


def _sayer(trial: Trial) -> Say:
    return lambda line: print(f"  {trial.name}: {line}", flush=True)


def _compare(reference: Outcome, outcome: Outcome, stages: Sequence[str]) -> Comparison:
    return compare(
        reference.hashes,
        outcome.hashes,
        reference.running.losses,
        outcome.running.losses,
        stages,
    )


def _make_row(
    trial: Trial, outcome: Outcome, compared: Comparison | None, said: str
) -> dict[str, Any]:
    """A run as the certificate tells of it; `compared` None: it is the reference."""
    running = outcome.running
    row: dict[str, Any] = {
        "name": trial.name,
        "what": trial.what,
        "cores": running.cores,
        "workers": trial.workers or "usual",
        "environment": dict(trial.environment),
        "kills": [{**asdict(kill), "said": describe_kill(kill)} for kill in running.kills],
        "seconds": round(running.seconds, 1),
    }
    if compared is not None:
        row |= {
            "said": said,
            "same_files": compared.n_same,
            "same": compared.is_same,
            "differences": [asdict(one) for one in compared.differences],
            "steps_compared": compared.n_steps,
            "first_loss": describe_loss(compared.loss) if compared.loss else None,
        }
    return row


class _About:
    """What is true of this check only; git may move on while it runs.

    Args:
        root: of the repository, before it is cloned.
    """

    def __init__(self, root: Path) -> None:
        self._start = time.monotonic()
        self._facts = {"revision": read_revision(root), "not_committed": find_changes(root)}

    def measure(self) -> dict[str, Any]:
        """When all is done."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            **self._facts,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._start, 1),
            # Of all that ended in order: what a kill orphaned has no parent to count it.
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        }


def _write(folder: Path, name: str, content: Mapping[str, Any], page: str) -> None:
    write_json(folder / f"{name}.json", content)
    write_text(folder / f"{name}.html", page)
    print(
        f"{content['verdict']}: {folder / name}.json and .html, "
        f"{content['measured']['seconds']:.0f} s in all ({content['measured']['cpu_seconds']:.0f} s of "
        f"CPU), CPU class {content['cpu_class']}"
    )
