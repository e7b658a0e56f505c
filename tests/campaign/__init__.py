"""What nobody does on purpose, many times at random: flipped bits, take-overs, odd values.

``make campaign MINUTES=30 SEED=1``; a fault is tried again alone by the command that is printed beside it.
"""
