"""Patches read by a language model, beside the controls that ask what it adds. Needs prismts[adapt].

A GPT-2 of two small layers with random weights, so that nothing is downloaded. With the real one:
model_settings={"backbone": "gpt2", "download": True, "train": "lora"}.
"""

import prismts
from prismts.data.synthetic import simulated_plant

plant = simulated_plant(1200)
sizes = {"weights": "random", "width": 32, "n_heads": 4, "feed_forward": 64, "n_layers": 2, "max_tokens": 64}
arms = {
    "language model, LoRA": {"train": "lora"},
    "the same on deformable patches": {"train": "lora", "patches": "deformable"},
    "one attention layer": {"backbone": "attention"},
    "nothing in its place": {"backbone": "none"},
}
for arm, changes in arms.items():
    forecaster = prismts.Forecaster(
        "gpt4ts", context_length=96, horizon=24, model_settings={**sizes, **changes},
        fit_settings={"max_epochs": 2, "batch_size": 64, "learning_rate": 1e-3}, progress=False,
    ).fit(plant, test=0.2)  # fmt: skip
    scores = forecaster.backtest(plant, begin=forecaster.test_begins_).scores
    print(f"{arm}: MSE {scores['mse']:.3f}; {forecaster.model_.trained_share}")
