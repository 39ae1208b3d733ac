"""The command ``prism``: each subcommand is a few lines over the library."""

from prismts.cli import (
    adapting,
    answer,
    benching,
    classifying,
    demonstration,
    detecting,
    distilling,
    exporting,
    filling,
    forecasting,
    look,
    pretraining,
    searching,
    serve,
    studio,
    studying,
)
from prismts.cli.app import app, main

__all__ = [
    "adapting",
    "answer",
    "app",
    "benching",
    "classifying",
    "demonstration",
    "detecting",
    "distilling",
    "exporting",
    "filling",
    "forecasting",
    "look",
    "main",
    "pretraining",
    "searching",
    "serve",
    "studio",
    "studying",
]
