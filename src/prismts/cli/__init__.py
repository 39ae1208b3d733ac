"""The command ``prism``: each subcommand is a few lines over the library."""

from prismts.cli import (
    answer,
    benching,
    classifying,
    demonstration,
    detecting,
    exporting,
    filling,
    forecasting,
    look,
    searching,
    serve,
    studio,
    studying,
)
from prismts.cli.app import app, main

__all__ = [
    "answer",
    "app",
    "benching",
    "classifying",
    "demonstration",
    "detecting",
    "exporting",
    "filling",
    "forecasting",
    "look",
    "main",
    "searching",
    "serve",
    "studio",
    "studying",
]
