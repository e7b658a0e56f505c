"""An experiment once more: is it the same, and how is it handed to somebody else?"""
