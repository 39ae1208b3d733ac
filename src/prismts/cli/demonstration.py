"""The main job on real data, end to end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.files import write_table
from prismts.cli.forecasting import score_table, scores_beside_floors, write_page
from prismts.cli.options import Quiet

__all__ = ["demo"]


@app.command
def demo(*, out: Path = Path("demo"), seed: int = 0, quiet: Quiet = False) -> None:
    """Train ConvTimeNet on ETTh2, score it beside the floors, forecast, and write it all into one page.

    Where ETTh2 is neither in PRISMTS_DATA nor in the cache and cannot be downloaded, a simulated plant takes its place.

    Parameters
    ----------
    out: The folder for the model, the forecast and the report.
    seed: Of everything random.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Collection, Series
    from prismts.data.splits import by_fraction
    from prismts.data.synthetic import simulated_plant
    from prismts.errors import DataError
    from prismts.estimators.forecaster import Forecaster

    console = Console(stderr=True, quiet=quiet)
    try:
        series = load_dataset("ETTh2")
        assert isinstance(series, Series)
        console.print("ETTh2: a power transformer in China, hourly, 2016-2018")
    except DataError as error:
        series = simulated_plant()
        console.print(f"[bold]SIMULATED DATA[/bold]: ETTh2 is not to be had here ({escape(str(error))})")
    borders = series.borders or by_fraction(len(series))
    forecaster = Forecaster(random_state=seed, progress=not quiet).fit(series, validation=borders)
    table = Collection.of(series)
    scores, floors, part = scores_beside_floors(forecaster, table, borders.test_end)
    console.print(score_table(scores, part))
    out.mkdir(parents=True, exist_ok=True)
    forecaster.save(out / "model")
    write_table(forecaster.predict(), out / "forecast.csv")
    page = write_page(out / "report.html", forecaster, table, scores, floors, borders.test_end)
    console.print(f"model: {out / 'model'}   forecast: {out / 'forecast.csv'}   report: {page}")
