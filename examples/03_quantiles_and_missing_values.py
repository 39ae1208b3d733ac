"""Quantiles calibrated on validation, from a table with holes; many series of different length in one model."""

import numpy as np
import pandas as pd

import prismts
from prismts.data.synthetic import simulated_plant

plant = simulated_plant(1200, seed=0)
long = pd.concat(
    pd.DataFrame({"date": plant.timestamps[:n], "plant": name, "load": plant.values[0, :n] * size})
    for name, n, size in (("north", 1200, 1.0), ("south", 900, 40.0), ("east", 400, 0.01))
)
long.loc[np.random.default_rng(0).random(len(long)) < 0.05, "load"] = np.nan  # not observed

forecaster = prismts.Forecaster(
    "ridge", context_length=96, horizon=24, quantiles=(0.1, 0.5, 0.9), series="plant", time="date"
).fit(long)
print(forecaster.predict().groupby("plant").head(1))
