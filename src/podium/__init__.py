"""Podium: from raw competition images to a submission its owner can trust."""

__version__ = "0.1.0"
