"""The service described to machines, for the models that are loaded, with examples that were run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from prismts import __version__
from prismts.data.layout import Duplicates
from prismts.serving.answers import ANSWER_FORMATS
from prismts.serving.bodies import BODY_FORMATS
from prismts.serving.served import TASKS, Facts

__all__ = ["PARAMETERS", "describe", "example_table"]

_COMMON: tuple[str, ...] = ("model", "time", "series", "frequency", "duplicates")
PARAMETERS: dict[str, tuple[str, ...]] = dict.fromkeys(TASKS, _COMMON)
PARAMETERS["detect"] = (*_COMMON, "merge_gap")
_LARGEST_EXAMPLE = 3000  # cells

_DESCRIPTION = (
    "Forecasts, classes, anomalies, filled gaps and vectors of multivariate time series. A table has time down the "
    "rows: wide, with one column per channel, or long, with a column that tells series apart. Every format gives the "
    "same answer. null, an empty cell and NaN mean: not observed."
)
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_SUMMARIES = {
    "forecast": "Continue every series beyond its end",
    "classify": "Name the class of every case, with the probability of every class",
    "detect": "Score every step, and name the stretches that are unusual",
    "impute": "Fill what was not observed",
    "embed": "Turn every case into a vector",
}
_ERRORS = {
    "401": "The token is missing or wrong.",
    "404": "There is no such model, stream or route.",
    "406": "Accept names no format that answers come in.",
    "413": "The body is larger than the limit, or grows beyond it when it is decoded.",
    "415": "The body is of a type that is not read.",
    "422": "The body or a parameter cannot be used; the message says where and what to do.",
    "429": "As many streams are open as the service keeps.",
    "503": "Too many requests are waiting, or the service is going down.",
}


def describe(
    models: Sequence[Facts], examples: Mapping[str, Mapping[str, Any]], *, needs_token: bool
) -> dict[str, Any]:
    """The OpenAPI 3.1 document. ``examples`` by task: {"request": body, "csv": text, "response": answer}."""
    by_task = {task: [facts for facts in models if facts.task == task] for task in TASKS}
    paths: dict[str, Any] = {
        "/health": {"get": _get("Whether the service is up", _json({"$ref": "#/components/schemas/Health"}), False)},
        "/models": {"get": _get("The models that are loaded", _json({"$ref": "#/components/schemas/Models"}), True)},
        "/metrics": {"get": _get("Numbers for Prometheus", {"text/plain": {"schema": {"type": "string"}}}, True)},
    }
    for task, loaded in by_task.items():
        if loaded:
            paths[f"/{task}"] = {"post": _ask(task, loaded, examples.get(task, {}))}
    if by_task["detect"]:
        paths |= _stream_paths(by_task["detect"], examples.get("detect", {}))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "PrismTS", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {"schemas": _schemas()},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for operations in paths.values():
        for operation in operations.values():
            needs = operation.pop("x-needs-token")
            if needs_token and needs:
                operation["security"] = [{"token": []}]
            else:
                operation["responses"].pop("401", None)
    return document


def example_table(facts: Facts) -> pd.DataFrame | None:
    """A small table that this model reads: a sine around each channel's level in training. None if it were large."""
    n = max(facts.min_timepoints, 8)
    if n * len(facts.channels) > _LARGEST_EXAMPLE:
        return None
    step = np.arange(n)
    how = facts.reading
    columns: dict[str, Any] = {}
    if how.series is not None:
        columns[how.series] = ["a"] * n
    columns[how.time or "time"] = pd.date_range("2026-01-01", periods=n, freq=how.frequency or facts.frequency or "h")
    for c, (channel, (mean, scale)) in enumerate(zip(facts.channels, facts.levels, strict=True)):
        values = mean + scale * np.sin(2 * np.pi * (step / 8 + c / max(1, len(facts.channels))))
        columns[channel] = [float(f"{value:.4g}") for value in values]
    if facts.task == "impute":
        columns[facts.channels[0]][n // 2] = np.nan
    return pd.DataFrame(columns)


# ---- operations


def _get(summary: str, content: dict[str, Any], needs_token: bool) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, **_errors("401", "422")},
        "x-needs-token": needs_token,
    }


def _ask(task: str, loaded: Sequence[Facts], example: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{_schema_name(task)}"}}
    if "response" in example:
        answer["example"] = example["response"]
    content: dict[str, Any] = {kind: dict(_BINARY) for kind in ANSWER_FORMATS}
    content["application/json"] = answer
    content["text/csv"] = {"schema": {"type": "string"}}
    return {
        "summary": _SUMMARIES[task],
        "operationId": task,
        "parameters": _parameters(task, loaded),
        "requestBody": {"required": True, "content": _bodies(example)},
        "responses": {
            "200": {"description": "The answer, in the format that Accept asks for", "content": content},
            **_errors("401", "404", "406", "413", "415", "422", "503"),
        },
        "x-needs-token": True,
    }


def _bodies(example: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {kind: dict(_BINARY) for kind in BODY_FORMATS}
    either = [{"$ref": "#/components/schemas/Columns"}, {"$ref": "#/components/schemas/Values"}]
    table: dict[str, Any] = {"schema": {"oneOf": either}}
    text: dict[str, Any] = {"schema": {"type": "string"}}
    found |= {"application/json": table, "text/csv": text}
    found["multipart/form-data"] = {
        "schema": {
            "type": "object", "required": ["file"], "additionalProperties": False,
            "properties": {
                "file": {"type": "string", "format": "binary", "description": "a .csv, .parquet, .arrows or .json file"}
            },
        }
    }  # fmt: skip
    if "request" in example:
        table["examples"] = {
            "columns": {"value": {"columns": example["request"]["columns"]}},
            "values": {"value": {"values": example["request"]["values"]}},
        }
        text["examples"] = {"wide": {"value": example["csv"]}}
    return found


def _parameters(task: str, loaded: Sequence[Facts]) -> list[dict[str, Any]]:
    names = [facts.name for facts in loaded]
    text = {"type": "string"}
    known: dict[str, tuple[dict[str, Any], str]] = {
        "model": ({"type": "string", "enum": names}, "which model answers; needed where several are loaded"),
        "time": (text, "name of the time column; found by itself if not given"),
        "series": (text, "name of the column that tells the series of a long table apart"),
        "frequency": (text, "the true step of the table, such as 15min, h, D or MS; found by itself if not given"),
        "duplicates": (
            {"type": "string", "enum": list(get_args(Duplicates))},
            "what becomes of rows with equal times but other values",
        ),
        "merge_gap": (
            {"type": "integer", "minimum": 0, "maximum": 10**9},
            "alarms with at most so many usual steps between them are one event",
        ),
    }
    found: list[dict[str, Any]] = []
    for name in PARAMETERS[task]:
        schema, words = known[name]
        one: dict[str, Any] = {"name": name, "in": "query", "description": words, "schema": schema}
        if name == "model":
            one |= {"required": len(names) > 1, "example": names[0]}
        found.append(one)
    return found


def _stream_paths(loaded: Sequence[Facts], example: Mapping[str, Any]) -> dict[str, Any]:
    place = {"name": "stream", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    stream = {"schema": {"$ref": "#/components/schemas/Stream"}}
    scores: dict[str, Any] = {kind: dict(_BINARY) for kind in ANSWER_FORMATS}
    scores["application/json"] = {"schema": {"$ref": "#/components/schemas/StreamScores"}}
    scores["text/csv"] = {"schema": {"type": "string"}}
    words = "Scores of these rows, and of those before that may have changed"
    scored: dict[str, Any] = {"200": {"description": words, "content": scores}}
    parameters = [one for one in _parameters("detect", loaded) if one["name"] in ("model", "frequency")]
    links = {
        name: {"operationId": operation, "parameters": {"stream": "$response.body#/stream"}}
        for name, operation in (("rows", "rows"), ("scores", "scores"), ("close", "close"))
    }
    return {
        "/detect/streams": {
            "post": {
                "summary": "Follow a series that grows",
                "operationId": "open",
                "parameters": parameters,
                "responses": {
                    "201": {
                        "description": "The stream, to which rows are sent",
                        "content": {"application/json": stream},
                        "links": links,
                    },
                    **_errors("401", "404", "422", "429", "503"),
                },
                "x-needs-token": True,
            }
        },
        "/detect/streams/{stream}": {
            "post": {
                "summary": "Score new rows of the series",
                "operationId": "rows",
                "parameters": [place, *(one for one in _parameters("detect", loaded) if one["name"] == "time")],
                "requestBody": {"required": True, "content": _bodies(example)},
                "responses": {**scored, **_errors("401", "404", "406", "413", "415", "422", "503")},
                "x-needs-token": True,
            },
            "get": {
                "summary": "All scores so far",
                "operationId": "scores",
                "parameters": [place],
                "responses": {**scored, **_errors("401", "404", "406", "422", "503")},
                "x-needs-token": True,
            },
            "delete": {
                "summary": "Close the stream and forget its rows",
                "operationId": "close",
                "parameters": [place],
                "responses": {"204": {"description": "It is closed"}, **_errors("401", "404", "422")},
                "x-needs-token": True,
            },
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {s: {"description": _ERRORS[s], "content": _json({"$ref": "#/components/schemas/Error"})} for s in statuses}


# ---- schemas


def _schema_name(task: str) -> str:
    return f"{task.capitalize()}Answer"


def _object(properties: Mapping[str, Any], required: Sequence[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object", "additionalProperties": False, "properties": dict(properties),
        "required": list(properties if required is None else required),
    }  # fmt: skip


def _schemas() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    texts = {"type": "array", "items": text}
    number: dict[str, Any] = {"type": "number"}
    count = {"type": "integer", "minimum": 0}
    cell = {"type": ["number", "string", "null"]}
    row = {"type": "array", "minItems": 1, "items": {"type": ["number", "null"]}}
    case = {"type": "array", "minItems": 1, "items": row}
    columns = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "items": cell}}
    nested = {"type": "array", "description": "nested as what was asked about"}
    beside = {"model": text, "task": text, "columns": columns, "values": nested, "findings": texts}
    required = ["model", "task", "findings"]
    label = {"type": ["string", "number", "boolean"]}
    event = _object(
        {"series": text, "begin": {"type": ["string", "integer"]}, "end": {"type": ["string", "integer"]},
         "score": number, "channels": texts},
        ["begin", "end", "score", "channels"],
    )  # fmt: skip
    more: dict[str, dict[str, Any]] = {
        "forecast": {
            "channels": texts,
            "horizon": count,
            "quantiles": {"anyOf": [{"type": "array", "items": number}, {"type": "null"}]},
        },
        "classify": {"classes": {"type": "array", "items": label}},
        "detect": {"threshold": number, "events": {"type": "array", "items": event}},
        "impute": {"channels": texts},
        "embed": {"n_features": count},
    }
    optional: dict[str, Any] = {
        "frequency": {"type": ["string", "null"]}, "context_length": {"type": ["integer", "null"]},
        "horizon": {"type": ["integer", "null"]}, "threshold": {"type": ["number", "null"]},
        "quantiles": {"type": ["array", "null"], "items": number},
        "classes": {"type": ["array", "null"], "items": label},
    }  # fmt: skip
    model = _object({
        "name": text, "task": {"type": "string", "enum": list(TASKS)}, "estimator": text, "architecture": text,
        "backend": text, "channels": texts, "any_channels": {"type": "boolean"}, "min_timepoints": count, **optional,
    })  # fmt: skip
    stream = {
        "stream": text, "model": text, "channels": texts, "frequency": {"type": ["string", "null"]},
        "threshold": number, "delay": count, "n_rows": count, "n_final": count,
    }  # fmt: skip
    answers = {_schema_name(task): _object(beside | one, [*required, *one]) for task, one in more.items()}
    return {
        "Columns": _object({"columns": {**columns, "description": "by name, time among them; null: unobserved"}}),
        "Values": _object({
            "values": {
                "description": "[channel][time] of one series, or [case][channel][time] of several; null: unobserved",
                "anyOf": [case, {"type": "array", "minItems": 1, "items": case}],
            }
        }),
        "Error": _object({"error": text, "message": text}),
        "Health": _object({"status": {"type": "string", "enum": ["ok"]}, "models": count}),
        "Models": _object({"models": {"type": "array", "items": model}}),
        "Stream": _object(stream),
        "StreamScores": _object({"stream": text, "model": text, "n_rows": count, "n_final": count, "columns": columns}),
        **answers,
    }  # fmt: skip


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as JSON."""
    return json.dumps(document, allow_nan=False).encode()
