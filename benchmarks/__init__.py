"""Measurements behind the README's figures; see __main__.py."""
