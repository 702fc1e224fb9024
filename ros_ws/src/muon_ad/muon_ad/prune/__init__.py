"""Makes networks smaller for good: which channels go, how they are cut out, and recovery.

`graph` finds which channels belong together, `scores` says what they are worth, `select` which of
them go, `cut` takes them out of a network and `carry` out of an optimiser. `gradual` does all of
it while a network goes on learning; `style` and `detector` are the commands.
"""
