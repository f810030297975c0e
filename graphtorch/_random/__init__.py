"""Random numbers: generators, their streams, and the functions that draw from them."""
