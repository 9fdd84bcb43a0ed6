"""Graphs of the audit page: nodes in columns from input to output, edges whose style says how well they stand.

solid: an intervention passed. double: two independent families did. dashed: a correlation, or partial, or weak. refuted: tested
and found absent (crossed out). untested: dotted. The style is in the line's shape first and in its colour second.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from palimpsest.report.svg import drawing, element, line, link, path, words

STYLES = ("solid", "double", "dashed", "refuted", "untested")
NODE_WIDTH, NODE_HEIGHT, COLUMN, ROW, MARGIN = 132.0, 46.0, 196.0, 92.0, 14.0
LETTERS = 19  # that fit into a node's line


@dataclass(frozen=True)
class Edge:
    """From one node's id to another's; `href` leads to the evidence, "" where there is none."""

    source: str
    target: str
    style: str
    says: str
    href: str = ""


def columns(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """How far right each node stands: one more than the furthest that leads to it; a cycle is broken where it closes.

    >>> columns(["a", "b", "c"], [Edge("a", "b", "solid", ""), Edge("b", "c", "solid", ""), Edge("a", "c", "dashed", "")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    before = {node: [edge.source for edge in edges if edge.target == node and edge.source != node] for node in nodes}
    depth: dict[str, int] = {}

    def of(node: str, walked: frozenset[str]) -> int:
        if node not in depth:
            given = [
                of(one, walked | {node}) + 1 for one in before.get(node, []) if one in before and one not in walked
            ]
            if walked & set(before.get(node, [])):
                return max(given, default=0)  # part of a cycle: only final when asked from outside of it
            depth[node] = max(given, default=0)
        return depth[node]

    return {node: of(node, frozenset({node})) for node in nodes}


def graph(label: str, nodes: Mapping[str, str], edges: Sequence[Edge], row: float = ROW) -> Markup:
    """The drawing; `nodes` maps an id to its words, `row` is the height of one."""
    drawn_edges = [edge for edge in edges if edge.source in nodes and edge.target in nodes]
    if not nodes:
        return Markup("")
    column = columns(list(nodes), drawn_edges)
    centres, height = _centres(list(nodes), column, row)
    width = MARGIN * 2 + NODE_WIDTH + COLUMN * max(column[node] for node in nodes)
    lines = [_edge(edge, centres, height) for edge in drawn_edges]
    boxes = [_node(words_of, *centres[node]) for node, words_of in nodes.items()]
    return drawing(width, height, label, *lines, *boxes, role="group")


def _centres(
    nodes: Sequence[str], column: Mapping[str, int], row: float
) -> tuple[dict[str, tuple[float, float]], float]:
    """Nodes of a column are spread over the height of the fullest one; neighbours are shifted so that lines do not cross boxes."""
    fullest = max(sum(column[node] == c for node in nodes) for c in {column[node] for node in nodes})
    height = MARGIN * 2 + max(2, fullest) * row
    centres = {}
    for c in sorted({column[node] for node in nodes}):
        own = [node for node in nodes if column[node] == c]
        for place, node in enumerate(own):
            lean = 14 if c % 2 else -14
            y = MARGIN + (place + 0.5) * (height - 2 * MARGIN) / len(own) + (lean if len(own) < 3 else 0)
            centres[node] = (MARGIN + NODE_WIDTH / 2 + c * COLUMN, y)
    return centres, height


def _node(text: str, x: float, y: float) -> Markup:
    lines = _wrapped(text)
    start = y + 4 - 7 * (len(lines) - 1)
    return element(
        "g",
        element("title", text),
        element(
            "rect",
            x=x - NODE_WIDTH / 2,
            y=y - NODE_HEIGHT / 2,
            width=NODE_WIDTH,
            height=NODE_HEIGHT,
            rx=8,
            class_="node",
        ),
        *(words(x, start + 14 * i, part, text_anchor="middle", class_="small") for i, part in enumerate(lines)),
    )


def _wrapped(text: str) -> list[str]:
    """At most three lines of a node."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LETTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    lines = [part if len(part) <= LETTERS + 2 else part[: LETTERS + 1] + "…" for part in lines]
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][: LETTERS - 1] + "…"]


def _edge(edge: Edge, centres: Mapping[str, tuple[float, float]], height: float) -> Markup:
    (x1, y1), (x2, y2) = centres[edge.source], centres[edge.target]
    style = edge.style if edge.style in STYLES else "untested"
    forwards = x2 >= x1
    start, end = (x1 + NODE_WIDTH / 2, y1), (x2 - NODE_WIDTH / 2 - 7, y2)
    if not forwards:
        start, end = (x1 - NODE_WIDTH / 2, y1), (x2 + NODE_WIDTH / 2 + 7, y2)
    if x1 == x2:  # within a column: from the lower edge to the upper one, or back
        down = y2 > y1
        start = (x1, y1 + NODE_HEIGHT / 2 * (1 if down else -1))
        end = (x2, y2 - (NODE_HEIGHT / 2 + 7) * (1 if down else -1))
    others = [centre for node, centre in centres.items() if node not in (edge.source, edge.target)]
    middle = _around(start, end, others, height)
    steps = f"M{start[0]:.1f} {start[1]:.1f} Q{middle[0]:.1f} {middle[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    parts: list[object] = [element("title", edge.says), element("path", d=steps, class_=f"edge {style}")]
    if style == "double":
        parts.append(element("path", d=steps, class_="edge inner"))
    parts.append(_head(middle, end, style))
    if style == "refuted":
        x, y = (start[0] + 2 * middle[0] + end[0]) / 4, (start[1] + 2 * middle[1] + end[1]) / 4
        parts += [line(x - 6, y - 6, x + 6, y + 6, class_="cross"), line(x - 6, y + 6, x + 6, y - 6, class_="cross")]
    return link(edge.href, *parts) if edge.href else element("g", *parts)


def _around(
    start: tuple[float, float], end: tuple[float, float], boxes: Sequence[tuple[float, float]], height: float
) -> tuple[float, float]:
    """The control point of the flattest curve that meets no other box and stays in the drawing, or meets fewest."""
    straight = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    best, fewest = straight, math.inf
    for step in range(0, 17):
        for side in (1, -1):
            middle = (straight[0], straight[1] + side * step * 16)
            met = 0
            for t in (i / 24 for i in range(1, 24)):
                x, y = (
                    (1 - t) ** 2 * a + 2 * t * (1 - t) * m + t**2 * b
                    for a, m, b in zip(start, middle, end, strict=True)
                )
                met += not 4 <= y <= height - 4
                met += any(abs(x - cx) < NODE_WIDTH / 2 + 4 and abs(y - cy) < NODE_HEIGHT / 2 + 5 for cx, cy in boxes)
            if met < fewest:
                best, fewest = middle, met
    return best


def _head(before: tuple[float, float], tip: tuple[float, float], style: str) -> Markup:
    """The arrow's head, in the direction in which the line arrives."""
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    length = math.hypot(dx, dy) or 1.0
    dx, dy = dx / length, dy / length
    corners = [
        (tip[0] + 7 * dx, tip[1] + 7 * dy),
        (tip[0] - 4 * dy, tip[1] + 4 * dx),
        (tip[0] + 4 * dy, tip[1] - 4 * dx),
    ]
    return path(corners, close=True, class_=f"head {style}")
