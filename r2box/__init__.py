"""r2box: programs joined to programs, on one machine and across many, by one rule.

    r2 f n0 (RouteTo n1 msg) = f n1 (RoutedFrom n0 msg)
"""

__version__ = "0.1.0"
