"""One encoder, pre-trained without labels, under three heads; a fourth is added later and leaves the others alone."""

import prismts
from prismts.data.synthetic import labeled_motions, planted_anomalies, simulated_plant

plant, motions, sensors = simulated_plant(900), labeled_motions(60), planted_anomalies(1000)
quick = {"max_epochs": 1, "batch_size": 32}  # a minute's training would be better, and an hour's still

model = prismts.UniversalModel(
    context_length=96, encoder_settings={"patch_lengths": (8, 16), "stride": 8, "width": 32}, fit_settings=quick,
    items_per_epoch=64, progress=False,
)  # fmt: skip
model.pretrain([plant, motions.train], fit_settings=quick, draws={"steps_per_epoch": 10})
print("one vector for each case:", model.embed(motions.test).shape)

model.fit([
    prismts.ForecastOn(plant, horizon=24), prismts.ClassifyOn(motions.train), prismts.DetectOn(sensors.part(0, 500)),
])  # fmt: skip
print("forecast:", model.forecast().shape, "classes:", set(model.classify(motions.test).tolist()))
print("detection:", round(model.evaluate(sensors, head="detect", borders=prismts.Borders(500, 500, 1000))["vus_pr"], 3))

before = model.forecast()
model.add_head(prismts.ImputeOn(plant))
print("a head more, and the forecast is the same:", model.forecast().equals(before))
