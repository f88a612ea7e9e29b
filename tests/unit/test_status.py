"""Rates and units of `r2 status` and `r2 top`."""

from __future__ import annotations

from typing import Any

from r2box.net.io.units import format_size, format_span
from r2box.tools.status.top import add_rates

Row = dict[str, Any]


# -- what is counted (in memory) --------------------------------------------------------------------------------------


def test_rates_are_differences() -> None:
    def row(sent: int, age: float, label: int = 2) -> Row:
        name = {"kind": "tunnel", "link": "bob", "label": label, "from": "child/1"}
        return {**name, "sent": sent, "received": 0, "age": age}

    first = [row(1000, 10)]
    add_rates(first, [], 0.0)
    assert first[0]["flow"] == 0
    then = [row(1500, 12), row(300, 1, label=4)]
    add_rates(then, first, 2.0)
    assert [each["sent_rate"] for each in then] == [250, 150]
    again = [row(40, 0.5)]  # another tunnel with the label of one that has ended
    add_rates(again, then, 2.0)
    assert again[0]["flow"] == 20


def test_units() -> None:
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 KiB", 1 << 20: "1.0 MiB", 340 << 20: "340 MiB", 1 << 50: "1024 TiB"}
    assert {size: format_size(size) for size in sizes} == sizes
    spans = {0.0: "0 ms", 0.00123: "1.23 ms", 0.5: "500 ms", 1: "1 s", 119: "119 s", 600: "10 min", 86400: "24 h",
             864000: "10 d"}  # fmt: skip
    assert {span: format_span(span) for span in spans} == spans
