"""What the page of ``prism studio`` has done for it in a process of its own: read a table, train, compare.

Every answer is a list of the sections that reports are made of (``prismts.report.page``), as plain values: the page
shows what a report would show, and the report is there to be taken along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prismts.errors import unknown_name
from prismts.serving.jobs import Tell
from prismts.serving.studio_compare import compare
from prismts.serving.studio_look import look
from prismts.serving.studio_source import SIMULATED
from prismts.serving.studio_train import train

__all__ = ["work"]


def work(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Do what is asked: ``{"do": "about" | "read" | "train" | "compare", ...}``."""
    doers = {"about": _about, "read": look, "train": train, "compare": compare}
    if request["do"] not in doers:
        raise unknown_name("job", request["do"], doers)
    return doers[request["do"]](request, tell)


def _about(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Tasks with their models and settings, and the data sets that are on this machine."""
    from prismts.data.catalog import list_datasets, where
    from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
    from prismts.estimators.detect_recipes import DETECT_SETTINGS
    from prismts.estimators.imputer import IMPUTE_SETTINGS
    from prismts.estimators.recipes import FORECAST_SETTINGS
    from prismts.models import MODELS
    from prismts.models.detectors import DETECTORS
    from prismts.report.theme import TEMPLATES

    every = [{"name": name, "title": entry.title, "trained": entry.is_trained} for name, entry in MODELS.items()]
    encoders = [one for one in every if MODELS[str(one["name"])].is_encoder]
    closed = [{"name": name, "title": entry.title, "trained": False} for name, entry in DETECTORS.items()]
    recipes: dict[str, Mapping[str, Any]] = {
        "forecast": FORECAST_SETTINGS, "classify": CLASSIFY_SETTINGS, "detect": DETECT_SETTINGS,
        "impute": IMPUTE_SETTINGS, "embed": {},
    }  # fmt: skip
    models = {"forecast": every, "detect": [*encoders, *closed]}
    tasks = {
        task: {
            "models": models.get(task, encoders),
            "settings": [{"name": name, "title": recipe.title} for name, recipe in named.items()],
        }
        for task, named in recipes.items()
    }
    here = ("PRISMTS_DATA", "cache")  # nothing is downloaded from this page
    known = [
        {"name": entry.name, "task": entry.task, "description": entry.description}
        for entry in list_datasets() if where(entry.name) in here
    ]  # fmt: skip
    return {
        "tasks": tasks, "datasets": known, "templates": TEMPLATES,
        "simulated": [{"name": name, "description": words} for name, words in SIMULATED.items()],
    }  # fmt: skip
