"""The same estimators as aeon's and sktime's own. Needs prismts[bench,sktime]."""

import numpy as np
import pandas as pd
from aeon.datasets import load_basic_motions
from sklearn.model_selection import cross_val_score

from prismts.adapters.aeon import PrismClassifier
from prismts.adapters.sktime import PrismForecaster

X, y = load_basic_motions(split="train")  # comes with aeon
classifier = PrismClassifier(fit_settings={"max_epochs": 1, "min_steps": 10}, validation=None)
print("aeon: accuracy by fold", cross_val_score(classifier, X[:, :, :50], y, cv=2))

load = pd.Series(np.sin(np.arange(400) * 2 * np.pi / 24), pd.period_range("2026-01-01", periods=400, freq="h"))
forecaster = PrismForecaster(context_length=48, fit_settings={"max_epochs": 1}).fit(load, fh=[1, 2, 3])
print("sktime:", forecaster.predict().round(2).to_dict())
