"""certificate.html and recheck.html: one file each, to open, mail or print; it loads nothing.

In: the content of the JSON beside it. Out: HTML with inline style.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).with_name("certificate.html.j2")
RECHECK = Path(__file__).with_name("recheck.html.j2")
_DIFFERENCES_SHOWN = 20


def make_certificate_page(certificate: Mapping[str, Any]) -> str:
    """The page of a certificate."""
    n_runs = len(certificate["runs"])
    n_kills = sum(len(run["kills"]) for run in certificate["runs"])
    return _render(
        CERTIFICATE,
        certificate,
        n_runs=n_runs,
        n_kills=n_kills,
        n_steps=max((run.get("steps_compared", 0) for run in certificate["runs"]), default=0),
    )


def make_recheck_page(recheck: Mapping[str, Any]) -> str:
    """The page of a check against another machine's certificate."""
    return _render(RECHECK, recheck)


def _render(template: Path, content: Mapping[str, Any], **numbers: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        it=content, differences_shown=_DIFFERENCES_SHOWN, **numbers
    )
