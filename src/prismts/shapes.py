"""Axes have letters: B batch, C channel, T context, H horizon, N patch, P step, D width, K class, G group."""

from typing import Protocol

from prismts.errors import ShapeError

__all__ = ["expect"]

_NAMES = {
    "B": "batch", "C": "channel", "T": "time", "H": "horizon", "N": "patch", "P": "step", "D": "width", "K": "class",
    "G": "group",
}  # fmt: skip


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def expect(x: _Shaped, axes: str, *, who: str = "This function", **sizes: int | None) -> None:
    """Raise a ShapeError unless ``x`` has these axes, e.g. ``expect(x, "B C T", who="Forecaster", C=7)``.

    Where the sizes would fit with the last two axes exchanged, the error says so, since that is the usual slip.
    """
    letters = axes.split()
    shape = tuple(x.shape)  # not turned into int, which would fix the batch size of an exported model

    def fits(candidate: tuple[int, ...]) -> bool:
        return len(candidate) == len(letters) and all(
            sizes.get(letter) in (None, n) for letter, n in zip(letters, candidate, strict=True)
        )

    if fits(shape):
        return
    wanted = ", ".join(
        _NAMES.get(letter, letter) + (f"={sizes[letter]}" if sizes.get(letter) is not None else "")
        for letter in letters
    )
    message = f"{who} reads [{wanted}], but got shape {list(shape)}."
    if len(shape) == len(letters) >= 2 and fits((*shape[:-2], shape[-1], shape[-2])):
        message += " The last two axes look exchanged: pass x.swapaxes(-1, -2)."
    raise ShapeError(message)
