"""Draw the pictures: ``python docs/pictures.py [NAME ...]`` fits estimators on simulated data and writes _static.

Seeds are fixed; the numbers in a picture are those of its run. Pictures are SVG written by hand, small, and readable
on white and on black.
"""

import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import prismts
from prismts.data.synthetic import labeled_motions, planted_anomalies, simulated_plant, sine_mixture
from prismts.report.theme import OBSERVED, PALETTE

STATIC = Path(__file__).parent / "_static"
BLUE, ORANGE, VIOLET, GREEN, PINK = PALETTE[:5]
WIDTH = 720


class Panel:
    """A rectangle of the picture with scales of its own: data in, SVG elements out."""

    def __init__(
        self, top: float, height: float, x: tuple[float, float], y: tuple[float, float], left: float = 44.0,
        width: float = WIDTH - 52.0,
    ) -> None:  # fmt: skip
        self.top, self.height, self.left, self.width = top, height, left, width
        self.x, self.y = x, y
        self.elements: list[str] = [
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{OBSERVED}" '
            'stroke-opacity="0.35"/>'
        ]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the data on the page."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def line(self, x: Sequence[float], y: Sequence[float], color: str, width: float = 1.5, dash: str = "") -> None:
        """A line, broken where y is NaN."""
        path, pen_up = "", True
        for a, b in zip(x, y, strict=True):
            if np.isnan(b):
                pen_up = True
                continue
            across, down = self.at(a, b)
            path += f"{'M' if pen_up else 'L'}{across:.1f} {down:.1f}"
            pen_up = False
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.elements.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"{extra}/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], color: str) -> None:
        """The area between two lines."""
        around = [self.at(a, b) for a, b in zip(x, low, strict=True)]
        around += [self.at(a, b) for a, b in zip(reversed(x), reversed(high), strict=True)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in around)
        self.elements.append(f'<polygon points="{points}" fill="{color}" fill-opacity="0.22"/>')

    def points(self, x: Sequence[float], y: Sequence[float], color: str, radius: float = 3.5) -> None:
        """A dot for each pair."""
        for a, b in zip(x, y, strict=True):
            across, down = self.at(a, b)
            self.elements.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{radius}" fill="{color}"/>')

    def span(self, begin: float, end: float, color: str) -> None:
        """A stretch of x, from top to bottom."""
        left, right = self.at(begin, self.y[0])[0], self.at(end, self.y[0])[0]
        self.elements.append(
            f'<rect x="{left:.1f}" y="{self.top}" width="{right - left:.1f}" height="{self.height}" fill="{color}" '
            'fill-opacity="0.25"/>'
        )

    def note(self, text: str, color: str = OBSERVED, row: int = 0, right: bool = False) -> None:
        """A line of text in the upper left (or right) corner."""
        x = self.left + self.width - 6 if right else self.left + 6
        anchor = "end" if right else "start"
        place = f'x="{x}" y="{self.top + 16 + 16 * row}" fill="{color}" text-anchor="{anchor}"'
        self.elements.append(f"<text {place}>{html.escape(text)}</text>")

    def ticks(self, x: Sequence[float] = (), y: Sequence[float] = (), *, powers: bool = False) -> None:
        """Numbers below and to the left; as powers of ten, where the axes hold their exponents."""

        def text(value: float) -> str:
            return f"{10.0**value:,.6g}" if powers else f"{value:g}"

        style = f'fill="{OBSERVED}" text-anchor='
        for value in x:
            across, down = self.at(value, self.y[0])
            anchor = "end" if across > WIDTH - 16 else "middle"
            place = f'x="{across:.1f}" y="{down + 15:.1f}" {style}"{anchor}"'
            self.elements.append(f"<text {place}>{text(value)}</text>")
        for value in y:
            across, down = self.at(self.x[0], value)
            place = f'x="{across - 6:.1f}" y="{down + 4:.1f}" {style}"end"'
            self.elements.append(f"<text {place}>{text(value)}</text>")


def write(name: str, height: float, panels: Sequence[Panel], title: str) -> None:
    """One picture of several panels."""
    body = "\n".join(element for panel in panels for element in panel.elements)
    (STATIC / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">\n<title>{html.escape(title)}</title>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def limits(*arrays: np.ndarray, above: float = 0.12) -> tuple[float, float]:
    """What holds all values, with a little air below, and a share of their range above for words."""
    low, high = min(np.nanmin(a) for a in arrays), max(np.nanmax(a) for a in arrays)
    return float(low - 0.06 * (high - low)), float(high + above * (high - low))


def forecast() -> None:
    """Two days of a simulated feeder, the forecast made before them, and its 80 % band."""
    plant = simulated_plant(6000, seed=0)
    horizon, past, now = 48, 120, 5000
    forecaster = prismts.Forecaster(context_length=168, horizon=horizon, quantiles=(0.1, 0.5, 0.9), progress=False)
    low, middle, high = forecaster.fit(plant.values[:, :now]).predict()[:, 0]  # [Q, H] of the first feeder
    told = forecaster.backtest(plant.values, begin=now)
    truth, seen = plant.values[0, now : now + horizon], plant.values[0, now - past : now]
    before, after = np.arange(-past, 0), np.arange(horizon)
    panel = Panel(6, 200, (-past, horizon), limits(seen, truth, low, high, above=0.3))
    panel.band(list(after), list(low), list(high), BLUE)
    panel.line([*before, 0], [*seen, truth[0]], OBSERVED)
    panel.line(after, truth, OBSERVED)
    panel.line(after, middle, BLUE, 2.0)
    panel.note("observed")
    panel.note(
        f"forecast and 80 % band, which covered {told.scores['coverage']:.1%} of {told.scores.n_scored} later windows",
        BLUE,
        1,
    )
    panel.ticks(range(-past, horizon + 1, 24))
    write("forecast", 228, [panel], "A forecast of 48 hours with its 80 percent band")


def classify() -> None:
    """Three cases that were not in training, and what is said of each."""
    cases = labeled_motions(90, seed=0)
    classifier = prismts.Classifier(progress=False).fit(cases.train)
    probabilities = classifier.predict_proba(cases.test)
    panels = []
    for i in range(3):
        case, chance = cases.test[i], probabilities[i]
        told = int(chance.argmax())
        x = case.values[0]
        width = (WIDTH - 32) / 3 - 8
        panel = Panel(6, 150, (0, len(x) - 1), (-2.4, 3.4), left=12 + i * (width + 12), width=width)
        panel.line(np.arange(len(x)), x, PALETTE[told])
        panel.note(f"class {classifier.classes_[told]}, probability {chance[told]:.2f}", PALETTE[told])
        panel.note(f"truth: class {cases.test.labels[i]}", row=1)
        panels.append(panel)
    write("classify", 162, panels, "Three test cases with the class that is told and its probability")


def detect() -> None:
    """A series with planted anomalies, and its scores with the threshold."""
    series = planted_anomalies(3000, n_anomalies=4, seed=0)
    usual, rest = series.part(0, 1500), series.part(1500, 3000)
    detector = prismts.AnomalyDetector(progress=False).fit(usual)
    scores, threshold = detector.score_samples(rest), detector.threshold_.value
    steps = np.arange(len(scores))
    edges = np.flatnonzero(np.diff(np.r_[0, rest.labels, 0]))
    shown = slice(None, None, 2)
    above = Panel(6, 110, (0, len(steps)), limits(rest.values[0], above=0.4))
    below = Panel(126, 90, (0, len(steps)), limits(scores, np.array([threshold]), above=0.7))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        above.span(float(begin), float(end), ORANGE)
        below.span(float(begin), float(end), ORANGE)
    above.line(steps[shown], rest.values[0, shown], OBSERVED, 1.0)
    above.note("one of three channels; what was planted", ORANGE)
    below.line(steps[shown], scores[shown], BLUE, 1.2)
    below.line([0, len(steps)], [threshold, threshold], PINK, 1.2, "5 4")
    below.note("score", BLUE)
    below.note("threshold", PINK, 1)
    below.ticks(range(0, len(steps) + 1, 250))
    write("detect", 238, [above, below], "A series with planted anomalies and its anomaly scores")


def impute() -> None:
    """A hole of 30 steps in one of three channels, filled by a line and by the imputer."""
    whole = sine_mixture(1200, periods=(24.0,), amplitudes=(1.0,), n_channels=3, seed=0).values
    holed, begin, end = whole.copy(), 1020, 1050
    holed[1, begin:end] = np.nan
    filled = prismts.Imputer(progress=False).fit(holed).transform(holed)
    steps = np.arange(960, 1110)
    gap = np.arange(begin - 1, end + 1)
    straight = np.interp(gap, [begin - 1, end], [holed[1, begin - 1], holed[1, end]])
    panel = Panel(6, 180, (steps[0], steps[-1]), limits(whole[1, steps], filled[1, steps]))
    panel.span(begin, end, OBSERVED)
    panel.line(gap, whole[1, gap], OBSERVED, 1.2, "3 3")
    panel.line(gap, straight, ORANGE, 1.4, "6 4")
    panel.line(gap, filled[1, gap], BLUE, 2.2)
    panel.line(steps, holed[1, steps], OBSERVED)
    ours = float(((filled - whole)[1, begin:end] ** 2).mean())
    line = float(((straight[1:-1] - whole[1, begin:end]) ** 2).mean())
    panel.note(f"filled: mean squared error {ours:.3f}", BLUE)
    panel.note(f"straight line: {line:.3f}", ORANGE, 1)
    panel.ticks(range(975, 1110, 25))
    write("impute", 208, [panel], "A gap of 30 steps, hidden values, a straight line and what the imputer fills in")


def embed() -> None:
    """Cases of three classes by the first two principal components of their vectors."""
    cases = labeled_motions(180, seed=0)
    embedder = prismts.Embedder(progress=False).fit(cases.train)
    vectors = embedder.transform(cases.test)
    centered = vectors - vectors.mean(axis=0)
    places = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T  # [n, 2]
    panel = Panel(6, 240, limits(places[:, 0]), limits(places[:, 1] - 0.15 * np.ptp(places[:, 1]), places[:, 1]))
    for label in sorted(set(cases.test.labels.tolist())):
        chosen = cases.test.labels == label
        panel.points(places[chosen, 0], places[chosen, 1], PALETTE[int(label)])
        across, down = panel.at(places[chosen, 0].mean(), places[chosen, 1].min())
        place = f'x="{across:.1f}" y="{down + 20:.1f}" fill="{PALETTE[int(label)]}" text-anchor="middle"'
        panel.elements.append(f"<text {place}>class {label}</text>")
    write("embed", 252, [panel], "Vectors of 60 cases, learned without labels, by two principal components")


def scaling() -> None:
    """Seconds and memory of growing sizes, from the results of benchmarks/scaling.py, on logarithmic axes."""
    found = json.loads((STATIC.parents[1] / "benchmarks" / "results" / "scaling.json").read_text())
    said = {
        "channels": "channels: a pass over 32 windows", "context": "steps of context: a step of 8 windows",
        "tokens": "tokens: a step of 2 windows", "series": "series: a batch of 256 windows",
    }  # fmt: skip
    panels: list[Panel] = []
    for i, (what, by_size) in enumerate(found.items()):
        size = np.log10([int(n) for n in by_size])
        seconds = np.log10([one["seconds"] for one in by_size.values()])
        memory = np.log10([max(one["MiB"], 1.0) for one in by_size.values()])
        lowest, memory_low = np.floor(seconds.min()), np.floor(memory.min())
        span = max(np.ceil(seconds.max()) - lowest, np.ceil(memory.max()) - memory_low) + 0.9
        place = {"left": 52.0 + (i % 2) * 372, "width": 244.0}
        x = (float(size[0]) - 0.1, float(size[-1]) + 0.1)
        panel = Panel(6 + (i // 2) * 190, 150, x, (float(lowest), float(lowest + span)), **place)
        panel.line(size, seconds, BLUE, 2.0)
        panel.points(size, seconds, BLUE, 2.5)
        reach = min(float(size[-1]), float(size[0] + panel.y[1] - seconds[0]))  # up to the frame
        panel.line([size[0], reach], [seconds[0], seconds[0] + reach - size[0]], OBSERVED, 1.0, "3 3")
        every = 2 if x[1] - x[0] > 4 else 1
        panel.ticks(range(int(np.ceil(x[0])), int(x[1]) + 1, every),
                    np.arange(lowest, lowest + span), powers=True)  # fmt: skip
        shifted = memory - memory_low + lowest  # on the same squares, numbered at the right
        panel.line(size, shifted, ORANGE, 2.0)
        panel.points(size, shifted, ORANGE, 2.5)
        for k in range(int(span) + 1):
            across, down = panel.at(x[1], lowest + k)
            label = f"{10.0 ** (memory_low + k):,g}"
            panel.elements.append(f'<text x="{across + 4:.1f}" y="{down + 4:.1f}" fill="{ORANGE}">{label}</text>')
        panel.note(said[what])
        panels.append(panel)
    panels[0].note("seconds", BLUE, 1)
    panels[0].note("MiB above the data (right)", ORANGE, 2)
    panels[1].note("dotted: in proportion", OBSERVED, 1)
    write("scaling", 366, panels, "Seconds and memory over channels, context, tokens and series; dotted: in proportion")


if __name__ == "__main__":
    STATIC.mkdir(exist_ok=True)
    drawn = {
        "forecast": forecast,
        "classify": classify,
        "detect": detect,
        "impute": impute,
        "embed": embed,
        "scaling": scaling,
    }
    for name in sys.argv[1:] or drawn:
        drawn[name]()
