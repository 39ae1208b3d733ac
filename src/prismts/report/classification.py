"""What a classifier makes of labeled cases: which classes it confuses, how far its probabilities can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.errors import DataError
from prismts.estimators.classifier import Classifier
from prismts.evaluation.classification import classification_scores
from prismts.models.failure import signs_of_failure
from prismts.report.page import Block, Drawing, Facts, Note, Section
from prismts.report.theme import OBSERVED, PALETTE, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["classification_sections", "confusion_figure", "embedding_figure", "trust_figure"]

_MOST_POINTS = 2_000  # of the map of embeddings


def classification_sections(classifier: Classifier, cases: Collection, *, part: str = "") -> list[Section]:
    """Sections of a page about a fitted classifier on labeled cases; ``part`` says in words which these are."""
    if cases.labels is None:
        raise DataError(f"Collection {cases.name!r} has no labels, so there is nothing to compare the answers with.")
    probabilities = classifier.predict_proba(cases)
    classes = classifier.classes_
    scores = classification_scores(cases.labels, probabilities, classes)
    said = classes[probabilities.argmax(1)]
    truth = np.asarray(cases.labels)
    facts = [(name.replace("_", " "), f"{scores[name]:.3f}") for name in ("accuracy", "balanced_accuracy", "log_loss")]
    summary: list[Block] = [Facts([*facts, ("cases", f"{len(cases):,}"), ("classes", str(len(classes)))], large=True)]
    network, line = classifier.weights_
    words = f"Weights of the networks and of the closed-form classifier: {network:.2g} and {line:.2g}."
    if classifier.validation_scores_ is not None:
        own = classifier.validation_scores_["accuracy"]
        words += f" Accuracy on {classifier.n_cases_['validation']} cases while they were left out: {own:.3f}."
    summary.append(Note(words, "note"))
    summary += [Note(told) for told in signs_of_failure(*classifier.members_).values()]
    confusion = Drawing(
        confusion_figure(truth, said, classes),
        "Rows are what the cases are, columns what they are said to be; numbers count cases.",
        "Which is taken for which",
    )  # fmt: skip
    trust = Drawing(
        trust_figure(truth, probabilities, classes),
        "Cases in bins of the probability of the class that was said, against the share of them that is right. On the "
        "line, 80 % means 80 %.", "Can the probabilities be believed",
    )  # fmt: skip
    seen = Drawing(
        embedding_figure(classifier.embed(cases), truth),
        "The embeddings of the cases along the two directions in which they differ most.", "How the networks see them",
    )  # fmt: skip
    title = f"Classification: {cases.name}"
    return [Section(title, summary), Section("Answers", [confusion, trust]), Section("Embeddings", [seen])]


def confusion_figure(truth: NDArray[Any], said: NDArray[Any], classes: NDArray[Any]) -> Figure:
    """How many cases of each class [n] are said to be of which: a heat map [K, K] of shares, counts on it."""
    import plotly.graph_objects as go

    code = {value: k for k, value in enumerate(classes.tolist())}
    counts = np.zeros((len(code), len(code)), dtype=int)
    for one, other in zip(truth.tolist(), said.tolist(), strict=True):
        counts[code[one], code[other]] += 1
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [label(value) for value in classes.tolist()]
    heat = go.Heatmap(
        z=shares, x=names, y=names, text=np.where(counts > 0, counts.astype(str), ""), texttemplate="%{text}",
        colorscale=[[0, "rgba(47,125,225,0)"], [1, PALETTE[0]]], zmin=0, zmax=1, showscale=False, xgap=1, ygap=1,
        hovertemplate="%{y} said to be %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(heat)
    figure.update_layout(height=max(260, min(700, 90 + 30 * len(names))))
    figure.update_xaxes(title="said", type="category", showgrid=False)
    figure.update_yaxes(title="is", type="category", autorange="reversed", showgrid=False)
    return figure


def trust_figure(
    truth: NDArray[Any], probabilities: NDArray[np.floating], classes: NDArray[Any], n_bins: int = 10
) -> Figure:
    """Confidence against the share that is right, in bins; the size of a point is the number of cases."""
    import plotly.graph_objects as go

    confidence, hit = probabilities.max(1), classes[probabilities.argmax(1)] == truth
    which = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    bins = np.unique(which)
    count = np.array([(which == b).sum() for b in bins])
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": OBSERVED, "dash": "dot", "width": 1}, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=[confidence[which == b].mean() for b in bins], y=[hit[which == b].mean() for b in bins], mode="markers",
        marker={"size": 8 + 22 * np.sqrt(count / count.max()), "color": PALETTE[0], "opacity": 0.8}, showlegend=False,
        text=[f"{n} cases" for n in count], hovertemplate="said %{x:.2f}, right %{y:.2f}, %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(height=320)
    figure.update_xaxes(title="probability of the class that was said", range=[0, 1.05])
    figure.update_yaxes(title="share that is right", range=[-0.05, 1.05])
    return figure


def embedding_figure(vectors: NDArray[np.floating], classes: NDArray[Any]) -> Figure:
    """Vectors [n, d] along their first two principal axes, colored by class [n]."""
    import plotly.graph_objects as go

    keep = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), _MOST_POINTS)).astype(int))
    centered = vectors[keep] - vectors[keep].mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    places = np.zeros((len(keep), 2))
    places[:, : min(2, u.shape[1])] = (u * s)[:, :2]
    figure = go.Figure()
    for k, value in enumerate(np.unique(classes[keep]).tolist()):
        mine = classes[keep] == value
        figure.add_scatter(
            x=places[mine, 0], y=places[mine, 1], mode="markers", name=label(value),
            marker={"color": PALETTE[k % len(PALETTE)], "size": 7, "symbol": k // len(PALETTE)},
        )  # fmt: skip
    note = "" if len(keep) == len(vectors) else f"Drawn are {len(keep):,} of {len(vectors):,} cases, evenly spaced."
    figure.update_layout(height=380, meta={"note": note})
    figure.update_xaxes(showticklabels=False)
    figure.update_yaxes(showticklabels=False)
    return figure
