"""Fill the holes of a table; observed values come back as they were. Judged on points that are taken away."""

import numpy as np
import pandas as pd

import prismts
from prismts.data.synthetic import sine_mixture

waves = sine_mixture(900, periods=(12.0,), amplitudes=(1.0,), n_channels=3, seed=0)
table = pd.DataFrame(waves.values.T, columns=["a", "b", "c"])
table.insert(0, "date", pd.date_range("2026-01-01", periods=len(table), freq="h"))
table["b"] = table["b"].mask(np.random.default_rng(0).random(len(table)) < 0.1)  # not observed

imputer = prismts.Imputer(context_length=48, fit_settings={"max_epochs": 1, "min_steps": 80}, progress=False)
filled = imputer.fit_transform(table)
seen = table["b"].notna()
assert (filled["b"] == table["b"])[seen].all()
print(f"{(~seen).sum()} holes before, {filled['b'].isna().sum()} after")

scores = imputer.evaluate_removed(table, share=0.2, kind="blocks", length=6)
print(f"spans of 6 steps removed: mse {scores['mse']:.3f}, straight lines {scores['mse_line']:.3f}")
