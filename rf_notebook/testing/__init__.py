"""Doubles and small real things that the tests, the benchmarks and users' own tests share."""
