"""Memories: editors that leave the weights alone and answer beside them.

    codebook       GRACE (Hartvigsen et al. 2023): a value in place of a layer's output where an input is near a stored key
    side           WISE (Wang et al. 2024): a second down-projection, used where it differs enough from the first
    texts          in-context editing (IKE, Zheng et al. 2023): the facts themselves, put before the prompt
    scoped texts   SERAC (Mitchell et al. 2022): the same, found by a scope that was learned

Each is an `Edit` with a `Routed` payload, so that applying, undoing, saving and refusing another base are those of any edit.
"""
