"""Weights that a model has borrowed from a pretrained network: left out of its folder, and checked where it is read.

A part that borrows says which of its weights are not its own (``prismts.models.contract.Borrower``). A model folder
then holds the others, and of each loan the part, the name of its source and a SHA-256 of the borrowed weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prismts.errors import SavedModelError
from prismts.models.contract import Borrower
from prismts.models.language_backbone import rebuilt_from
from prismts.models.language_hub import digest_of

__all__ = ["borrowing", "split_loans", "with_loans"]

_SHOWN = 12  # characters of a hash in a message


def split_loans(model: nn.Module, *, whole: bool) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The weights to write, and what is noted of each loan: all weights where ``whole``, else those of the model."""
    weights: dict[str, Tensor] = dict(model.state_dict())
    loans: list[dict[str, Any]] = []
    for part, lent in _lent(model, weights).items():
        borrower: Any = model.get_submodule(part)
        loan = {"part": part, "source": borrower.source, "sha256": digest_of(lent), "whole": whole}
        loans.append({**loan, "form": borrower.form} if whole else loan)
        if not whole:
            for name in lent:
                del weights[f"{part}.{name}" if part else name]
    return weights, loans


@contextlib.contextmanager
def borrowing(loans: Sequence[Mapping[str, Any]], path: str | Path) -> Generator[None]:
    """Within, the model of this folder is built: pretrained networks are read, or only built if all was saved.

    Raises:
        SavedModelError: the pretrained network is not on this machine, with what can be done.
    """
    try:
        with rebuilt_from({loan["source"]: loan["form"] for loan in loans if loan["whole"]}):
            yield
    except SavedModelError as error:
        if not loans:
            raise
        raise SavedModelError(
            f"{path} was saved without the weights that it borrows from {loans[0]['source']!r}: {error} Where it was "
            "fitted, save(path, whole=True) writes a folder that needs nothing else."
        ) from error


def with_loans(
    model: nn.Module, weights: dict[str, Tensor], loans: Sequence[Mapping[str, Any]], path: str | Path
) -> dict[str, Tensor]:
    """The saved weights, and beside them the borrowed ones, as the model was built with them.

    Raises:
        SavedModelError: the pretrained network is another one than that the model was trained with.
    """
    found = dict(weights)
    lent = _lent(model, model.state_dict())
    for loan in loans:
        if loan["whole"]:
            continue
        there = lent.get(loan["part"], {})
        known = digest_of(there)
        if known != loan["sha256"]:
            raise SavedModelError(
                f"{path} was trained on the weights of {loan['source']!r} whose SHA-256 begins with "
                f"{loan['sha256'][:_SHOWN]}, but that of those here begins with {known[:_SHOWN]}. Bring back the "
                "ones it was trained on."
            )
        found |= {f"{loan['part']}.{name}" if loan["part"] else name: value for name, value in there.items()}
    return found


def _lent(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The borrowed weights of each part that has some, by their names within it."""
    found: dict[str, dict[str, Tensor]] = {}
    for part, module in model.named_modules():
        if isinstance(module, Borrower) and (names := module.borrowed()):
            found[part] = {name: weights[f"{part}.{name}" if part else name] for name in names}
    return found
