"""Constrained least squares by brute force: all entries of dW as unknowns of one dense linear system."""

import numpy as np


def least_change(weight: np.ndarray, moment: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The dW that minimises |dW C^(1/2)|_F subject to (W + dW) K = V.

    With x the rows of dW one after the other, the objective is x^T (I kron C) x and the constraint (I kron K^T) x = r,
    so x and the multipliers m solve

        [ 2 (I kron C)   (I kron K^T)^T ] [x]   [0]
        [ I kron K^T     0              ] [m] = [r]

    Args:
        weight: W of shape (d, d_key).
        moment: C of shape (d_key, d_key), symmetric and positive.
        keys: K of shape (d_key, n), n independent columns.
        values: V of shape (d, n).
    """
    d, d_key = weight.shape
    residual = values - weight @ keys
    objective = 2 * np.kron(np.eye(d), moment)
    constraint = np.kron(np.eye(d), keys.T)
    corner = np.zeros((constraint.shape[0], constraint.shape[0]))
    system = np.block([[objective, constraint.T], [constraint, corner]])
    solution = np.linalg.solve(system, np.concatenate([np.zeros(d * d_key), residual.reshape(-1)]))
    return solution[: d * d_key].reshape(d, d_key)
