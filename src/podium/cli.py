"""The `podium` command: parses words, calls one function, turns user errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import podium
from podium.commands.no_git import settle_without_git
from podium.errors import EXIT_USER_ERROR, PodiumError, explain_os_error


def main(words: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 2 the user's input, 130 Ctrl-C, 141 nobody reads any more,
    else dvc's or Python's."""
    root = _look_for_root(Path.cwd())
    if root:
        _run_own_code(root)  # before the words are read: it may know others
    arguments = _make_parser().parse_args(words)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # of `podium compare | head`, say: what was asked for has been seen
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        code = 141
    except PodiumError as error:
        code = _fail(str(error))
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        code = 130
    except OSError as error:
        line = explain_os_error(error)
        if line is None:
            raise
        code = _fail(line)
    sys.exit(code)


def find_root(start: Path) -> Path:
    """The repository that `start` stands in: the nearest folder upwards with a dvc.yaml.

    Raises:
        PodiumError: there is none.
    """
    root = _look_for_root(start)
    if root is None:
        raise PodiumError(f"{start} is in no Podium repository: no dvc.yaml here or above")
    return root


def _look_for_root(start: Path) -> Path | None:
    return next((at for at in (start, *start.parents) if (at / "dvc.yaml").exists()), None)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return EXIT_USER_ERROR


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="podium", description=podium.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"podium {podium.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_command(commands, "run", "data if missing, dvc repro, and a table of what came out")

    init = _add_command(commands, "init", "bring a competition in: a folder, a zip, or --demo")
    what = init.add_mutually_exclusive_group(required=True)
    what.add_argument("path", nargs="?", type=Path, help="the competition's folder or zip")
    what.add_argument("--demo", action="store_true", help="render the embedded lemon competition")
    init.add_argument("--train-csv", help="CSV of ids and labels; 'none': one folder per class")
    init.add_argument("--train-images", help="folder of the labelled images")
    init.add_argument("--test-images", help="folder of the images to predict")
    init.add_argument("--sample", help="the organiser's sample submission, or 'none'")
    init.add_argument("--label-column", help="column of the labels, by name or number from 0")
    init.add_argument("--copy", action="store_true", help="copy files, never link them")
    init.add_argument("--demo-seed", type=int, default=0, help="seed of the demo (default 0)")
    init.add_argument("--demo-train", type=int, default=800, help="its training photos (800)")
    init.add_argument("--demo-test", type=int, default=200, help="its test photos (200)")
    init.add_argument("--demo-size", type=int, default=160, help="their side in px (160)")

    predict = _add_command(commands, "predict", "class names and probabilities from deploy/")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="files of images")

    score = _add_command(commands, "score", "score a submission to the demo competition")
    score.add_argument("submission", type=Path, help="a submission.csv")

    log = _add_command(commands, "log-score", "note a submission's public score; plot them all")
    log.add_argument("submission", nargs="?", type=Path, help="the file that was handed in")
    log.add_argument("public", nargs="?", type=float, help="its public score, as 0.981")
    log.add_argument("--at", help="when it was handed in, UTC (now), as 2026-11-26T14:05")
    log.add_argument("--plot", action="store_true", help="draw public against val")
    compare = _add_command(
        commands, "compare", "is run B better than run A, or is that noise? nothing is run again"
    )
    compare.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="A B: git revisions, experiments or 'workspace'; with --all the baseline (HEAD)",
    )
    compare.add_argument("--all", action="store_true", help="every experiment against one baseline")
    compare.add_argument("--md", action="store_true", help="Markdown, for a pull request")
    compare.add_argument("--html", type=Path, help="where the page of changed images goes")
    compare.add_argument("--fail-if", choices=["worse"], help="exit with 1 where that is the word")
    certify = _add_command(
        commands,
        "certify",
        "the DAG four times in clean clones, one killed three times, compared by hash",
    )
    certify.add_argument("--against", type=Path, metavar="CERTIFICATE", help="run once and compare")
    certify.add_argument("--output", type=Path, metavar="FOLDER", help="(.podium/certificate)")
    certify.add_argument("--full", action="store_true", help="params as committed: hours, maybe")
    certify.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another param"
    )
    certify.add_argument("--jobs", type=int, default=2, help="runs side by side (2)")
    certify.add_argument("--keep", action="store_true", help="leave the clones and say where")
    _add_command(commands, "doctor", "check installation, machine and repository, in seconds")

    _add_command(commands, "check", "check all of params.yaml")
    _add_command(
        commands,
        "clean",
        "remove decoded images, logs and caches of tools, and say what that frees",
    )
    return parser


def _add_command(commands: Any, name: str, says: str) -> argparse.ArgumentParser:
    """A command that says the same in the list of all and in its own --help."""
    sentence = f"{says[0].upper()}{says[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, help=says, description=sentence)
    return parser


def _dispatch(arguments: argparse.Namespace) -> int:
    root = find_root(Path.cwd())
    command = arguments.command
    if command == "predict":
        from podium.commands.predict import predict

        predict(arguments.images, root / "deploy")
        return 0
    if command == "clean":
        from podium.commands.clean import clean

        clean(root)
        return 0
    if command == "score":
        from podium.commands.score import score

        score(arguments.submission, root)
        return 0
    if command == "log-score":
        _log_score(arguments, root)
        return 0
    if command == "compare":
        return _compare(arguments, root)
    if command == "certify":
        return _certify(arguments, root)
    if command == "doctor":
        from podium.doctor.doctor import doctor

        return doctor(root)
    if command == "init":
        settle_without_git(root)
        _init(arguments, root)
        return 0
    os.chdir(root)
    if command == "check":
        from podium.params import load_params
        from podium.schema import AllParams, check_rules

        for line in check_rules(load_params(AllParams)):
            print(line)
        print("params.yaml: all keys known, all values in range, nothing that the rules forbid")
        return 0
    from podium.commands.run import run

    settle_without_git(root)
    return run(root)


def _certify(arguments: argparse.Namespace, root: Path) -> int:
    from podium.certify.certify import OUTPUT, SMALL, Options, certify, recheck
    from podium.certify.clones import parse_overrides

    overrides = {**({} if arguments.full else SMALL), **parse_overrides(arguments.set)}
    output = arguments.output or root / OUTPUT
    options = Options(overrides, output, arguments.jobs, arguments.keep)
    if arguments.against is None:
        return certify(root, options)
    if arguments.full or arguments.set:
        raise PodiumError(
            "--against takes the params of the certificate: leave --full and --set out"
        )
    return recheck(root, arguments.against, options)


def _init(arguments: argparse.Namespace, root: Path) -> None:
    if arguments.demo:
        from podium.commands.init import init_demo
        from podium.intake.demo.spec import PAIR_BLOCK, DemoSpec

        spec = DemoSpec(
            seed=arguments.demo_seed,
            train=arguments.demo_train,
            test=arguments.demo_test,
            size_px=arguments.demo_size,
            near_duplicates=min(
                DemoSpec.near_duplicates, max(0, arguments.demo_train) // PAIR_BLOCK
            ),
        )
        lines = init_demo(root, spec)
    else:
        from podium.intake.choice import Choice
        from podium.intake.init import init_competition

        choice = Choice(
            train_csv=arguments.train_csv,
            sample=arguments.sample,
            train_images=arguments.train_images,
            test_images=arguments.test_images,
            label_column=arguments.label_column,
        )
        lines = init_competition(arguments.path, root, choice, link=not arguments.copy).lines
    print("\n".join(lines))


def _log_score(arguments: argparse.Namespace, root: Path) -> None:
    from podium.commands.log_score import log_score, plot_ledger

    if arguments.public is not None:
        log_score(root, arguments.submission, arguments.public, arguments.at)
    elif arguments.submission is not None or not arguments.plot:
        raise PodiumError("log-score: expected FILE and its public SCORE, or --plot alone")
    if arguments.plot:
        plot_ledger(root)


def _compare(arguments: argparse.Namespace, root: Path) -> int:
    from podium.commands.compare import compare_all, compare_two

    names, fail_if_worse = arguments.runs, arguments.fail_if == "worse"
    if arguments.all:
        if len(names) > 1 or arguments.html:
            raise PodiumError(
                "podium compare --all takes one run, the baseline (HEAD unless said), and writes no "
                "page: `podium compare A B` does"
            )
        return compare_all(root, names[0] if names else "HEAD", arguments.md, fail_if_worse)
    if len(names) != 2:
        raise PodiumError(
            f"podium compare: expected two runs, as `podium compare HEAD workspace`, got {len(names)}"
        )
    before, after = names
    return compare_two(root, before, after, arguments.md, arguments.html, fail_if_worse)


def _run_own_code(root: Path) -> None:
    """Start again with the code of the tree we stand in, where that is another one.

    An environment may serve several clones; each must be worked on by its own code.
    """
    own = root / "src"
    running = Path(podium.__file__).resolve().parents[1]
    if (own / "podium").is_dir() and own.resolve() != running:
        os.environ["PYTHONPATH"] = str(own)
        os.execv(sys.executable, [sys.executable, "-m", "podium.cli", *sys.argv[1:]])


if __name__ == "__main__":
    main()
