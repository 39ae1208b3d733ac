"""The command ``prism``: each subcommand is a few lines over the library."""

from prismts.cli import answer, classifying, demonstration, detecting, filling, forecasting, look, studying
from prismts.cli.app import app, main

__all__ = [
    "answer",
    "app",
    "classifying",
    "demonstration",
    "detecting",
    "filling",
    "forecasting",
    "look",
    "main",
    "studying",
]
