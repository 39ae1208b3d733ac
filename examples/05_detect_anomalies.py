"""Learn what is usual from the first half of a series; find what is not in the second, and follow it as it grows."""

import numpy as np

import prismts
from prismts.data.synthetic import planted_anomalies

series = planted_anomalies(3000, n_anomalies=4, seed=0)
usual, rest = series.part(0, 1500), series.part(1500, 3000)
detector = prismts.AnomalyDetector(progress=False).fit(usual)
print(f"judges {', '.join(detector.judges_)}; alarm above {detector.threshold_.value:.2f}")

for event in detector.events(rest, merge_gap=10):  # windows reach beyond what disturbs them, so events are wide
    planted = int(rest.labels[event.start : event.end].sum())
    print(f"steps {event.start} to {event.end}, of which {planted} were planted; channels {', '.join(event.channels)}")

stream = detector.stream()
for rows in np.array_split(rest.values, 5, axis=1):
    stream.update(rows)
assert np.allclose(stream.scores, detector.score_samples(rest))  # the scores of the whole series so far
print(f"followed {len(stream)} steps; the scores of {stream.n_final} are final")
