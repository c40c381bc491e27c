"""Loops that Numba compiles: a second, faster spelling of what other modules say in torch."""
