"""A tree without .git (a downloaded archive): tell DVC, and say what works."""

from __future__ import annotations

from pathlib import Path


def settle_without_git(root: Path) -> None:
    """Where `root` has no .git, switch DVC to working without one and say what that means."""
    if (root / ".git").exists():
        return
    print(
        "no .git here: podium init, run and predict, dvc repro and metrics show work; dvc exp, "
        "metrics diff, podium compare and certify need a git repository (`git init`)",
        flush=True,
    )
    config = root / ".dvc" / "config.local"
    if not config.exists():
        config.write_text("[core]\n    no_scm = true\n", encoding="utf-8")
