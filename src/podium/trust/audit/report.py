"""What the audit stage writes: metrics/audit.json and reports/audit/.

In: an `Audit`. Out: audit.html (one file; it loads nothing from anywhere), findings.csv,
relabel_candidates.csv, near_duplicates.csv, contact sheets.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd

from podium.files import replace_folder, write_bytes, write_csv, write_metrics, write_text
from podium.probes.findings import SEVERITIES, Severity
from podium.trust.audit.doctor import Audit
from podium.trust.audit.labels import CANDIDATES
from podium.trust.audit.twins import TABLE

METRICS = Path("metrics/audit.json")
FOLDER = Path("reports/audit")
PAGE = "audit.html"
TEMPLATE = Path(__file__).with_name("audit.html.j2")
_CANDIDATES_SHOWN = 20

_SHEETS = {
    "occlusion.png": "What the model was shown",
    "masks.png": "Where the masks say the object is",
    "labels.png": "Labels in doubt, the most doubtful first",
    "near_duplicates.png": "Near-duplicates",
}


def write_audit(root: Path, name: str, found: Audit) -> None:
    """Write everything; the folder is replaced as a whole."""
    records = [finding.to_json() for finding in found.findings]
    with replace_folder(root / FOLDER) as folder:
        write_text(folder / PAGE, make_page(name, found))
        write_csv(folder / "findings.csv", pd.DataFrame(records))
        write_csv(folder / CANDIDATES, found.candidates)
        write_csv(folder / TABLE, found.twins.table)
        for file, content in found.sheets.items():
            write_bytes(folder / file, content)
    counts: dict[str, Any] = {
        f"n_{severity.replace(' ', '_')}": count(found, severity) for severity in SEVERITIES
    }
    report = {
        **counts,
        "n_label_candidates": len(found.candidates),
        "n_near_duplicate_groups": len(found.twins.groups),
        "floor": round(found.scale.floor, 6),
        "top": round(found.scale.top, 6),
        "findings": records,
    }
    write_metrics(
        root / METRICS, report, (*counts, "n_label_candidates", "n_near_duplicate_groups")
    )


def count(found: Audit, severity: Severity) -> int:
    """How many findings are of this severity."""
    return sum(finding.severity == severity for finding in found.findings)


def make_summary(found: Audit) -> list[str]:
    """What the stage prints: alarms and notices in full, the others by number."""
    lines = [
        f"{finding.severity.upper()}: {finding.sentence}"
        for finding in found.findings
        if finding.severity in ("alarm", "notice")
    ]
    lines.append(
        f"{count(found, 'alarm')} alarms, {count(found, 'notice')} notices; "
        f"{count(found, 'quiet')} checks are quiet, {count(found, 'not measured')} were not "
        f"measured; the page: {FOLDER / PAGE}"
    )
    return lines


def make_page(name: str, found: Audit) -> str:
    """Render audit.html."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    sheets = [
        (title, file, _make_data_uri(found.sheets[file]))
        for file, title in _SHEETS.items()
        if file in found.sheets
    ]
    return template.render(
        name=name,
        findings=found.findings,
        counts={severity: count(found, severity) for severity in SEVERITIES},
        model=found.model,
        scale=found.scale,
        sheets=sheets,
        candidates=found.candidates.head(_CANDIDATES_SHOWN).to_dict("records"),
        n_candidates=len(found.candidates),
        candidates_file=CANDIDATES,
    )


def _make_data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
