"""The table at the end of a run: where things are, and how good they are beside the baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from podium.trust.contract.verdict import CONTRACT_FILE, describe_contract, load_contract

STAGES = (
    "eda",
    "split",
    "label_shuffle",
    "features",
    "train",
    "evaluate",
    "audit",
    "compress",
    "submit",
)


def print_summary(root: Path) -> None:
    """Print it; a number that no stage wrote is left out."""
    evaluate, eda = _load(root, "evaluate"), _load(root, "eda")
    compress, submit = _load(root, "compress"), _load(root, "submit")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    contract = load_contract(root / CONTRACT_FILE) if (root / CONTRACT_FILE).exists() else {}
    table.add_row("val accuracy", _with_interval(evaluate, "accuracy"))
    val = contract.get("submission.csv", {}).get("val", {})
    if val and val["metric"] in evaluate and val["score"] != evaluate[val["metric"]]:
        table.add_row("  as submitted", _describe_decided(val))
    table.add_row("  majority class", _percent(eda, "majority_accuracy"))
    table.add_row("  linear on thumbnails", _percent(eda, "linear_accuracy"))
    table.add_row("  border pixels only", _percent(eda, "border_accuracy"))
    shipped = compress.get("shipped")
    if shipped:
        row = compress["details"][0]["candidates"][shipped]
        table.add_row(
            "  as shipped", f"{_with_interval(row, 'accuracy')}, {row['bytes'] / 1e6:.2f} MB"
        )
    for name, line in _find_alarms(root):
        table.add_row(name, line)
    table.add_row("submission", _handed_in(submit, "submission.csv"))
    table.add_row("  compressed", _handed_in(submit, "submission_compressed.csv"))
    if contract:
        table.add_row("contract", describe_contract(contract))
    table.add_row("model", f"deploy/ ({shipped}), try: podium predict IMAGE")
    table.add_row("metrics", "metrics/*.json; data: reports/eda/eda.html")
    table.add_row("can it be trusted?", "reports/audit/audit.html")
    seconds = {name: _load(root, f"measured/{name}").get("seconds") for name in STAGES}
    known = {name: value for name, value in seconds.items() if value is not None}
    times = ", ".join(f"{name} {value:.1f}" for name, value in known.items())
    table.add_row("seconds, last run", f"{times}; together {sum(known.values()):.1f}")
    print()
    Console(width=110, highlight=False).print(table)


def _find_alarms(root: Path) -> list[tuple[str, str]]:
    """A row for each alarm of the audit and one that counts the rest, with the names of the checks
    that could not be made: no alarm of those means nothing. None before it ran."""
    audit = _load(root, "audit")
    if not audit:
        return []
    findings = audit["details"][0]["findings"]
    alarms = [finding for finding in findings if finding["severity"] == "alarm"]
    rows = [
        (
            f"[bold red]ALARM: {escape(alarm['check'])}[/]",
            f"[bold red]{escape(alarm['sentence'])}[/]",
        )
        for alarm in alarms
    ]
    said = f"{audit['n_alarm'] or 'no'} alarm{'s' * (audit['n_alarm'] > 1)}; "
    said += f"{audit['n_notice']} notices, {audit['n_label_candidates']} labels in doubt"
    unknown = [finding["check"] for finding in findings if finding["severity"] == "not measured"]
    if unknown:
        said += f"; not measured: {', '.join(unknown)}"
    return [*rows, ("audit", escape(said))]


def _load(root: Path, name: str) -> dict[str, Any]:
    path = root / "metrics" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _percent(metrics: dict[str, Any], name: str) -> str:
    value = metrics.get(name)
    return "" if value is None else f"{value * 100:.1f} %"


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None:
        return _percent(metrics, name)
    return f"{_percent(metrics, name)} (95 %: {low * 100:.1f} to {high * 100:.1f})"


def _describe_decided(val: dict[str, Any]) -> str:
    """The val score of what a decoder or a temperature makes of the raw answers."""
    score = "not known" if val["score"] is None else f"{val['score']:.4f}"
    return f"{val['metric']} {score}, after evaluate.decoder or calibrate"


def _handed_in(submit: dict[str, Any], name: str) -> str:
    facts = submit.get("details", [{}])[0].get(name, {})
    verdict = "may be handed in" if facts.get("may_be_handed_in") else "breaks a rule"
    return f"{name}: {verdict}, model {facts.get('model_mb')} MB"
