"""Textbook LEACE: Belrose et al. 2023, theorem 4.3, line by line in numpy, from all states at once."""

import numpy as np


def one_hot(labels: list[str]) -> np.ndarray:
    """One column a class, sorted."""
    return np.array([[float(label == name) for name in sorted(set(labels))] for label in labels])


def textbook(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, c) of r(x) = R x + c, with R = I - W^+ P W and c = W^+ P W mu."""
    mean, n = x.mean(0), len(x)
    sigma_xx = (x - mean).T @ (x - mean) / n
    sigma_xz = (x - mean).T @ (z - z.mean(0)) / n
    u, s, _ = np.linalg.svd(sigma_xx, hermitian=True)
    s = np.where(s > s[0] * 1e-12, s, 0)
    root = u @ np.diag(np.sqrt(s)) @ u.T
    w = np.linalg.pinv(root, rcond=1e-7)
    whitened = w @ sigma_xz
    p = whitened @ np.linalg.pinv(whitened, rcond=1e-8)
    gone = np.linalg.pinv(w, rcond=1e-7) @ p @ w
    return np.eye(len(mean)) - gone, gone @ mean
