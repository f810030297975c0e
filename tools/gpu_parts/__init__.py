"""The parts of tools/gpu.py: each has `cases(options)`, names and what gives a row, and
`table(rows)`."""
