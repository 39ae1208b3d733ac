"""Our estimators under the interfaces of other libraries: one module for each, imported by whoever has the library.

    from prismts.adapters.aeon import PrismClassifier      # pip install 'prismts[bench]'
    from prismts.adapters.sktime import PrismForecaster    # pip install 'prismts[sktime]'

An adapter checks nothing and decides nothing: its arguments are those of our estimator, which it builds when it is
fitted and keeps as ``estimator_``, with all that the library has no word for (``save``, ``embed``, ``backtest``).
"""

from numbers import Integral
from typing import Any

__all__ = ["seed_of"]


def seed_of(random_state: Any) -> int:
    """The seed that our estimators want, out of what scikit-learn allows: a number, a ``RandomState``, or None."""
    if isinstance(random_state, Integral):
        return int(random_state)
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31 - 1))
