"""One vector per case, learned without labels; what was learned from three channels embeds any number of any length."""

from sklearn.linear_model import LogisticRegression

import prismts
from prismts.data.synthetic import labeled_motions

cases = labeled_motions(45, n_timepoints=60, seed=0)
embedder = prismts.Embedder(fit_settings={"max_epochs": 1, "min_steps": 40}, progress=False).fit(cases.train)
vectors = embedder.transform(cases.train)

probe = LogisticRegression(max_iter=1000).fit(vectors, cases.train.labels)
accuracy = probe.score(embedder.transform(cases.test), cases.test.labels)
print(f"{vectors.shape[1]} numbers for each case; a linear classifier on them: accuracy {accuracy:.3f} on test")

others = labeled_motions(6, n_channels=5, n_timepoints=200, seed=1)
print("five channels, 200 steps:", embedder.transform(others).shape)
