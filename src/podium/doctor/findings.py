"""What the doctor says of one thing: fine, worth knowing, or to be mended first."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        level: ok, warn (works, but) or fail (mend it first).
        subject: one or two words.
        said: what was found, with its numbers.
        advice: what to do; empty where all is well.
    """

    level: str
    subject: str
    said: str
    advice: str = ""

    def __str__(self) -> str:
        end = f": {self.advice}" if self.advice else ""
        return f"{self.level:<4}  {self.subject:<12}  {self.said}{end}"
