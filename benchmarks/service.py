"""A bounded load on `prism serve`, from this machine alone: requests per second, p50 and p99, and every answer checked.

python benchmarks/service.py                              8 clients, 200 requests each, torch and onnx
python benchmarks/service.py --clients 1 --requests 100   one client, so no company

A small ConvTimeNet (context 336, horizon 96, 7 channels of a simulated plant, quantiles) is trained for one epoch,
served by a process of its own on a free port of 127.0.0.1, and asked by clients that send the next request when the
last one is answered. Every answer is compared with what the library answers offline for the same table: to the last
bit, unless the setting says "any", which may differ by single precision's rounding (1e-5 of the scale). Torch answers
are compared with ``Forecaster.predict``, those of ONNX Runtime with ``OnnxModel.predict`` and, to 1e-4 of the scale,
with torch. Latencies include sending, reading, computing and the way back; ``server_cpu_ms`` is what a request costs
the server, whatever else the machine does. Nothing leaves this machine, and all ends after the last request.
"""

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import prismts
from prismts.data.synthetic import simulated_plant

KEPT = Path(__file__).parent / "results" / "service.json"
SETTINGS = {
    "torch, one at a time": ["--gather", "off"],
    "torch, gathered, same bits": [],
    "torch, gathered, any": ["--gather", "any"],
    "onnx, one at a time": ["--backend", "onnx", "--gather", "off"],
    "onnx, gathered, any": ["--backend", "onnx", "--gather", "any"],
}
N_TABLES = 32  # different requests, sent in turn


def tables(n: int) -> list[pd.DataFrame]:
    """Windows of a plant that the model has not seen."""
    plant = simulated_plant(4000, seed=1)
    frames = []
    for start in np.linspace(0, 4000 - 336, n).astype(int):
        part = plant.part(int(start), int(start) + 336)
        frame = pd.DataFrame(part.values.T, columns=list(part.channels))
        frame.insert(0, "date", part.timestamps)
        frames.append(frame)
    return frames


def body_of(frame: pd.DataFrame) -> bytes:
    """A table as JSON, each number the shortest that single precision reads back."""
    columns = {"date": frame["date"].astype(str).tolist()}
    columns |= {name: frame[name].to_numpy().astype(str).astype(float).tolist() for name in frame.columns[1:]}
    return json.dumps({"columns": columns}).encode()


def values_of(frame: pd.DataFrame) -> np.ndarray:
    """The numbers of a forecast [columns, H]."""
    return frame.iloc[:, 1:].to_numpy().T


def cpu_seconds(pid: int) -> float:
    """What a process has used of all cores so far, which other processes do not change; NaN where it is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    address: str, pid: int, bodies: list[bytes], n_clients: int, n_requests: int
) -> tuple[list[tuple[int, bytes]], dict]:
    """Every answer with the number of its question, and how long they took."""
    answers: list[tuple[int, bytes]] = []
    seconds: list[float] = []
    host, port = address.split("//")[1].split(":")

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        for i in range(n_requests):
            which = (number * 7 + i) % len(bodies)
            began = time.perf_counter()
            connection.request("POST", "/forecast", bodies[which], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            seconds.append(time.perf_counter() - began)
            assert answer.status == 200, content
            answers.append((which, content))
        connection.close()

    for i in range(len(bodies)):  # what happens once happens before: imports, kernels, the sizes that keep their bits
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", "/forecast", bodies[i], {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(n_clients)]
    began, used = time.perf_counter(), cpu_seconds(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, used = time.perf_counter() - began, cpu_seconds(pid) - used
    p50, p99 = (float(q) * 1e3 for q in np.quantile(seconds, [0.5, 0.99]))
    assert len(answers) == n_clients * n_requests, "a client stopped early"
    return answers, {
        "requests_per_second": round(len(answers) / wall, 1), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1),
        "server_cpu_ms": round(used * 1e3 / len(answers), 2), "n": len(answers),
    }  # fmt: skip


def together(address: str) -> float:
    """How many requests were answered together on average."""
    host, port = address.split("//")[1].split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    total, count = (float(re.search(rf"prism_batch_requests_{what}{{.*}} (.*)", text)[1]) for what in ("sum", "count"))
    return round(total / count, 2)


def main() -> None:
    """Run every setting, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200, help="of each client")
    parser.add_argument("--only", help="settings whose name holds this")
    asked = parser.parse_args()
    frames = tables(N_TABLES)
    bodies = [body_of(frame) for frame in frames]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "plant"
        forecaster = prismts.Forecaster(
            context_length=336, horizon=96, quantiles=(0.1, 0.5, 0.9), progress=False,
            fit_settings={"max_epochs": 1, "min_steps": 0},
        ).fit(simulated_plant(1500, seed=0))  # fmt: skip
        forecaster.save(model)
        offline = {"torch": [values_of(forecaster.predict(frame)) for frame in frames]}
        scale = np.repeat(forecaster.scaler_.scale[0], 4)[:, None]  # the middle and three quantiles of each channel
        environment = {**os.environ, "PRISMTS_CACHE": str(Path(folder) / "cache")}
        environment.pop("PRISMTS_TOKEN", None)
        for name, options in SETTINGS.items():
            if asked.only and asked.only not in name:
                continue
            backend = name.split(",")[0]
            command = [sys.executable, "-m", "prismts", "serve", str(model), "--port", "0", *options]
            server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
            try:
                found = (re.search(r"serving: (http://127\.0\.0\.1:\d+)", line) for line in server.stderr)
                address = next(match[1] for match in found if match)
                if backend == "onnx" and "onnx" not in offline:
                    offline["onnx"] = onnx_answers(next((Path(folder) / "cache").rglob("*.onnx")), frames)
                busy = os.getloadavg()[0]
                answers, row = load(address, server.pid, bodies, asked.clients, asked.requests)
                row |= {"answered_together": together(address), "load_average_before": round(busy, 1)}
            finally:
                server.terminate()
                server.wait(60)
            exact, worst, beside = 0, 0.0, 0.0
            for which, content in answers:
                columns = json.loads(content)["columns"]
                told = np.array([columns[column] for column in columns if column != "date"]).astype(np.float32)
                exact += bool((told == offline[backend][which]).all())
                worst = max(worst, float((np.abs(told - offline[backend][which]) / scale).max()))
                beside = max(beside, float((np.abs(told - offline["torch"][which]) / scale).max()))
            row |= {"same_bits": exact, "largest_difference": worst, "largest_difference_to_torch": beside}
            assert worst <= (1e-5 if "any" in name else 0.0), f"{name}: an answer differs by {worst} of the scale"
            assert beside <= 1e-4, f"{name}: an answer differs from torch by {beside} of the scale"
            rows[name] = row
            print(f"{name:28} {row}", flush=True)
    if not asked.only:
        note = f"{platform.machine()}, {os.cpu_count()} cores"
        KEPT.parent.mkdir(exist_ok=True)
        whole = {"clients": asked.clients, "requests_of_each": asked.requests, "machine": note, "settings": rows}
        KEPT.write_text(json.dumps(whole, indent=1) + "\n")


def onnx_answers(file: Path, frames: list[pd.DataFrame]) -> list[np.ndarray]:
    """What the exported file answers offline, in the columns of a table."""
    from prismts.serving.runtime import OnnxModel

    model = OnnxModel(file)
    answers = []
    for frame in frames:
        forecast = model.predict(frame.iloc[:, 1:].to_numpy().T)  # [Q, C, H]
        by_channel = np.concatenate([forecast[1][:, None], forecast.transpose(1, 0, 2)], axis=1)  # middle first
        answers.append(by_channel.reshape(-1, forecast.shape[-1]))
    return answers


if __name__ == "__main__":
    main()
