"""Fixtures for all tests: the math environment, and a repository in miniature."""

from __future__ import annotations

from podium.runtime import configure_math

configure_math()
