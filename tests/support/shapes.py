"""Networks by shape and seed: which of `count` nodes are linked.  Links are pairs, the lesser first."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Pair = tuple[int, int]


def ring(count: int, random: Random) -> set[Pair]:
    return {_pair(node, (node + 1) % count) for node in range(count) if count > 1}


def tree(count: int, random: Random) -> set[Pair]:
    """Each node hangs on one of those before it, any of them alike."""
    return {(random.randrange(node), node) for node in range(1, count)}


def scale_free(count: int, random: Random) -> set[Pair]:
    """Each node takes two of those before it, the likelier the more links they have (Barabasi and Albert, 1999)."""
    pairs: set[Pair] = set()
    ends = [0]
    for node in range(1, count):
        chosen: set[int] = set()
        while len(chosen) < min(2, node):
            chosen.add(random.choice(ends))
        pairs.update((other, node) for other in chosen)
        ends += [*sorted(chosen), *[node] * len(chosen)]
    return pairs


def grid(count: int, random: Random) -> set[Pair]:
    """As square as it can be; the last row may be shorter."""
    width = max(1, round(count**0.5))
    right = {(node, node + 1) for node in range(count - 1) if (node + 1) % width}
    return right | {(node, node + width) for node in range(count - width)}


def anyhow(count: int, random: Random) -> set[Pair]:
    """Twice as many links as nodes, any of them alike; what falls apart is joined by one link more."""
    wanted = min(2 * count, count * (count - 1) // 2)
    pairs: set[Pair] = set()
    while len(pairs) < wanted:
        a, b = random.randrange(count), random.randrange(count)
        if a != b:
            pairs.add(_pair(a, b))
    for part in parts(count, pairs)[1:]:
        pairs.add(_pair(part[0], random.randrange(part[0])))
    return pairs


def parts(count: int, pairs: set[Pair]) -> list[list[int]]:
    """The nodes that reach each other, by their least."""
    beside: dict[int, list[int]] = {node: [] for node in range(count)}
    for a, b in pairs:
        beside[a].append(b)
        beside[b].append(a)
    found, seen = [], set[int]()
    for node in range(count):
        if node in seen:
            continue
        part = [node]
        seen.add(node)
        for one in part:
            part += [other for other in beside[one] if other not in seen]
            seen.update(beside[one])
        found.append(sorted(part))
    return found


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


SHAPES: dict[str, Callable[[int, Random], set[Pair]]] = {
    "random": anyhow, "ring": ring, "tree": tree, "scale-free": scale_free, "grid": grid,
}  # fmt: skip
