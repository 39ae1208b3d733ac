"""Score a model beside last value, last season and ridge, on the same windows and the same scale."""

from prismts.data.series import Collection
from prismts.data.splits import by_fraction
from prismts.data.synthetic import simulated_plant
from prismts.estimators.floors import fit_floors
from prismts.estimators.forecaster import Forecaster

series = simulated_plant(2000, seed=0)
borders = by_fraction(len(series))
forecaster = Forecaster(context_length=96, horizon=24, fit_settings={"max_epochs": 3}, progress=False)
forecaster.fit(series, validation=borders)

data = Collection.of(series)
contestants = {"convtimenet": forecaster, **fit_floors(forecaster, data)}
for name, one in contestants.items():
    scores = one.backtest(data, begin=borders.validation_end).scores
    print(f"{name:12} mse {scores['mse']:.3f}  mase {scores['mase']:.3f}  ({scores.n_scored} windows)")
