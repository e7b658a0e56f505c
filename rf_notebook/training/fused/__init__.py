"""Runs that share a base model advance in joint steps.

One forward and backward of the base for all of them.
"""
