"""The page about a classifier shows the numbers it was given."""

import numpy as np
import pytest

from prismts.data.synthetic import labeled_motions
from prismts.errors import DataError
from prismts.estimators.classifier import Classifier
from prismts.report.classification import classification_sections, confusion_figure, embedding_figure, trust_figure
from prismts.report.page import write_report


@pytest.fixture(scope="module")
def fitted():
    motions = labeled_motions(60, n_channels=2, n_timepoints=40)
    model = Classifier(
        model_settings={"width": 8, "feed_forward": 8, "kernel_sizes": (5,)}, fit_settings={"max_epochs": 2},
        validation=2, progress=False,
    )  # fmt: skip
    return model.fit(motions.train), motions.test


def test_the_heat_map_counts_cases_by_class_and_answer():
    figure = confusion_figure(np.array(["a", "a", "b", "b"]), np.array(["a", "b", "b", "b"]), np.array(["a", "b"]))
    (heat,) = figure.data
    assert np.asarray(heat.z).tolist() == [[0.5, 0.5], [0, 1]]
    assert np.asarray(heat.text).tolist() == [["1", "1"], ["", "2"]] and list(heat.x) == ["a", "b"]


def test_a_class_name_cannot_smuggle_markup_into_the_page():
    figure = confusion_figure(np.array(["<b>", "x"]), np.array(["x", "x"]), np.array(["<b>", "x"]))
    assert list(figure.data[0].x) == ["&lt;b&gt;", "x"]


def test_confidence_is_drawn_against_the_share_that_is_right():
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.45, 0.55], [0.4, 0.6]])
    figure = trust_figure(np.array([0, 1, 1, 1]), probabilities, np.array([0, 1]))
    points = dict(zip(np.round(figure.data[1].x, 3), figure.data[1].y, strict=True))
    assert points == {0.55: 1.0, 0.6: 1.0, 0.935: 0.5}


def test_the_map_keeps_the_largest_distances():
    vectors = np.array([[0.0, 0, 0], [10, 0, 0], [0, 1, 0], [10, 1, 0.0]])
    figure = embedding_figure(vectors, np.array(["a", "a", "b", "b"]))
    first = {trace.name: sorted(np.abs(trace.x)) for trace in figure.data}
    np.testing.assert_allclose(first["a"], [5, 5])
    np.testing.assert_allclose(first["b"], [5, 5])


def test_the_page_holds_scores_and_weights(fitted, tmp_path):
    model, cases = fitted
    sections = classification_sections(model, cases, part="test part")
    facts, note = sections[0].blocks
    assert dict(facts.items)["cases"] == "20" and "while they were left out" in note.text
    written = write_report(tmp_path / "page.html", "answers", sections)
    assert written.path.stat().st_size == written.n_bytes and "How the networks see them" in written.path.read_text()


def test_cases_without_labels_cannot_be_reported(fitted):
    from dataclasses import replace

    model, cases = fitted
    with pytest.raises(DataError, match="has no labels"):
        classification_sections(model, replace(cases, labels=None))
