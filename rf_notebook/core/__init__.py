"""The words of the field: runs, operations, events, state, errors and ports.

Standard library only.
"""
