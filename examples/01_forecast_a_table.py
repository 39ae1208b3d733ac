"""Read a table, fit, continue it, save it. Runs in seconds on a simulated plant; put your own file in its place."""

import tempfile
from pathlib import Path

import pandas as pd

import prismts
from prismts.data.synthetic import simulated_plant

folder = Path(tempfile.mkdtemp())
plant = simulated_plant(1500, seed=0)
table = pd.DataFrame(plant.values.T, columns=list(plant.channels))
table.insert(0, "date", plant.timestamps)
table.to_csv(folder / "plant.csv", index=False)

forecaster = prismts.Forecaster(context_length=96, horizon=24, progress=False).fit(folder / "plant.csv")
forecast = forecaster.predict()
print(forecast.head(3))

forecaster.save(folder / "model")
again = prismts.load(folder / "model").predict(folder / "plant.csv")
assert forecast.equals(again)
