"""Learn classes from labeled cases of any length; ask for classes, calibrated probabilities and a score; save."""

import tempfile
from pathlib import Path

import prismts
from prismts.data.synthetic import labeled_motions

cases = labeled_motions(45, n_timepoints=60, seed=0)
known = [case.values[:, : 40 + 3 * (i % 7)] for i, case in enumerate(cases.train)]  # lengths may differ
classifier = prismts.Classifier(fit_settings={"max_epochs": 5, "min_steps": 20}, validation=2, progress=False)
classifier.fit(known, cases.train.labels)

scores = classifier.evaluate(cases.test)
print(f"left out of training: accuracy {classifier.validation_scores_['accuracy']:.3f} of {len(known)} cases")
print(f"test: accuracy {scores['accuracy']:.3f} of {scores.n_scored} cases")
print("first test case, probability of each class:", classifier.predict_proba(cases.test)[0].round(3))

folder = Path(tempfile.mkdtemp()) / "model"
classifier.save(folder)
assert (prismts.load(folder).predict(cases.test) == classifier.predict(cases.test)).all()
