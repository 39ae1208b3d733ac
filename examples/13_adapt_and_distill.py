"""Go on from a trained model on new data with few trained weights, and teach a small model what a large one says."""

import tempfile
from pathlib import Path

import prismts
from prismts.data.splits import Borders
from prismts.data.synthetic import simulated_plant
from prismts.estimators.adapting import load_adapter, save_adapter
from prismts.estimators.distilling import measured, smaller

folder = Path(tempfile.mkdtemp())
settings = {"max_epochs": 3, "batch_size": 64, "learning_rate": 1e-3}

# a model of one plant, and little data of another one
base = prismts.Forecaster(context_length=96, horizon=24, setting="published", fit_settings=settings, progress=False)
plant, parts = simulated_plant(2000, seed=0), Borders(1400, 1600, 2000)
base.fit(plant, validation=parts)
little, few = simulated_plant(900, seed=1), Borders(500, 600, 900)
for how in ("probe", "lora"):
    mine = prismts.adapt(base, little, how=how, validation=few)
    print(f"{how}: MSE {mine.backtest(little, begin=600).scores['mse']:.3f}, {mine.adaptation_}")

save_adapter(mine, folder / "adapter")  # without the encoder it began with
again = load_adapter(folder / "adapter", base)
assert again.predict().equals(mine.predict())
size = sum(file.stat().st_size for file in (folder / "adapter").iterdir())
print(f"the adapter alone: {size / 1e3:.0f} KB")

# a student of at most a tenth of the base, taught and alone
student = smaller(base, share=0.1)
alone = smaller(base, share=0.1).fit(plant, validation=parts)
prismts.distill(base, student, plant, weight=0.5, cache=folder / "answers", validation=parts)
for name, model in {"teacher": base, "taught": student, "alone": alone}.items():
    one = measured(model, plant, begin=1600)
    print(f"{name}: MSE {one.scores['mse']:.3f}, {one.n_parameters:,} numbers, {1e3 * one.latency:.2f} ms")
