"""The experiment on paper: what travels with a notebook, written, read, verified, compared.

Trains nothing.
"""
