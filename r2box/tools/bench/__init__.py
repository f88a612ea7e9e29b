"""r2 bench: throughput and round trips to a node.

    bench  the tool
    gauge  the measurements
"""
