"""A trained model behind HTTP: what `prism serve model/` does, in one process. Needs prismts[serve]."""

import json
import socket
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import uvicorn

import prismts
from prismts.data.synthetic import simulated_plant
from prismts.serving.service import create_app

folder = Path(tempfile.mkdtemp())
plant = simulated_plant(1200, seed=0)
table = pd.DataFrame(plant.values.T, columns=list(plant.channels))
table.insert(0, "date", plant.timestamps)
forecaster = prismts.Forecaster("ridge", context_length=96, horizon=24).fit(table.iloc[:1000])
forecaster.save(folder / "plant")

# from here on: prism serve plant/
listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(create_app([folder / "plant"]), log_level="warning"))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
thread.start()
while not server.started:
    time.sleep(0.01)
address = f"http://127.0.0.1:{listener.getsockname()[1]}"

recent = table.iloc[-96:].to_csv(index=False).encode()  # JSON, Parquet and Arrow streams get the same answer
request = urllib.request.Request(f"{address}/forecast", recent, {"Content-Type": "text/csv"})
answer = json.load(urllib.request.urlopen(request))
print(answer["columns"]["date"][0], {name: cells[0] for name, cells in answer["columns"].items() if name != "date"})

offline = forecaster.predict(table.iloc[-96:])  # the service says what the library says
for name in plant.channels:
    assert np.array_equal(np.float32(answer["columns"][name]), offline[name])

server.should_exit = True  # requests on their way would be answered first
thread.join()
listener.close()
