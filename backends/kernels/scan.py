"""Running reductions along a dimension: cumsum, cumprod, cummax and cummin."""
