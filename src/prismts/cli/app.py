"""The command ``prism`` itself: what every subcommand hangs on, and how mistakes end."""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from prismts import __version__
from prismts.errors import PrismError

__all__ = ["app", "fit_app", "main"]

app = App(
    name="prism",
    version=__version__,
    help="""Forecast, classify, watch and fill time series, and measure it honestly.

    A first look, then a model, then what it says:

        prism check data.csv
        prism fit forecast data.csv --horizon 96 --out model/
        prism predict model/ --out next.csv --plot next.html
        prism evaluate model/ data.csv

        prism fit classify TRAIN.ts --out model/     then: prism evaluate model/ TEST.ts
        prism fit detect data.csv --out model/       then: prism predict model/ new.csv
        prism impute data.csv --out filled.csv
        prism embed cases.ts --out vectors.csv
        prism adapt model/ new.csv --out mine/       go on from it with few trained weights
        prism distill model/ data.csv --out small/   a small model that learned from it
        prism export model/ --out model.onnx         one file that answers by itself
        prism bench run SPEC.yaml --out results/     then: prism bench table results/
        prism serve model/                           answers over HTTP
        prism search spec.yaml --out search/         the settings that validation likes best
        prism pretrain SPEC.yaml --out model/        an encoder for every task, from many series without labels
        prism studio data.csv                        the same, on a page of this machine

    A table has time down the rows: wide, with one column per channel, or long, with a column that tells the series
    apart (--series). Files: .csv, .csv.gz, .parquet, .npz, .ts. Empty cells mean "not observed".
    """,
    suppress_keyboard_interrupt=False,
)
fit_app = App(name="fit", help="Learn from data and write a model folder.")
app.command(fit_app)


def main() -> None:
    """Run the command; bad input ends with one clear line and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except (PrismError, CycloptsError) as error:
        sys.stderr.write(f"prism: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has seen enough, as in: prism predict m | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that cannot be written, a full disk
        place = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"prism: {place}{error.strerror or error}.\n")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        told = " ".join(["stopped.", *getattr(stop, "__notes__", [])])
        sys.stderr.write(f"prism: {told}\n")
        sys.exit(130)
