"""Arrays in, numbers out: metrics, protocols and backtests that say how good a model is."""
