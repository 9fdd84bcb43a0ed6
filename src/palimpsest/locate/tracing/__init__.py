"""Patching: causal tracing and lesions, their averages over facts, and their controls.

`patching` computes the grid, `corruption` and `asked` what goes into it, `maps` is what comes out; `trace` and `lesion` are the two
directions, `roles` averages over facts, `survey` maps many of them, `controls` is what they are compared with.
"""
