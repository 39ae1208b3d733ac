"""PrismTS: one encoder, every task, for multivariate time series."""
