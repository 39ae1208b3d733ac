"""One file that answers by itself: a detector as ONNX, read with numpy and onnxruntime alone. Needs prismts[export]."""

import tempfile
from pathlib import Path

import numpy as np

import prismts
from prismts.data.synthetic import planted_anomalies
from prismts.serving.export import export
from prismts.serving.runtime import OnnxModel

series = planted_anomalies(1200, n_anomalies=3, seed=0)
detector = prismts.AnomalyDetector("sub_pca", progress=False).fit(series.part(0, 700))
path = export(detector, Path(tempfile.mkdtemp()) / "detector.onnx")

model = OnnxModel(path)  # in another process, torch would never be imported
values = series.values[:, 700:].astype(np.float32)
values[0, 100:110] = np.nan  # not observed: bridged inside the graph
scores, alarms = model.score_samples(values), model.predict(values)

print(f"{model.metadata['name']}: {model.channels}, alarm above {model.threshold:.2f}")
print(f"{alarms.sum()} alarms in {len(scores)} steps; largest difference to the detector:", end=" ")
print(f"{np.abs(scores - detector.score_samples(values)).max():.1e}")
assert (alarms == detector.predict(values)).all()
