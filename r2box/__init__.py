"""r2box connects programs, on one machine and across many, by one rule of routing:

    r2 f n0 (RouteTo n1 msg) = f n1 (RoutedFrom n0 msg)

In reading order; imports follow it, and `proto` never imports `net`.  The docstring of each folder lists its modules.

    errors          exception tree and exit statuses
    version         the version
    proto/          the protocol, pure: no descriptor, clock, randomness or logging
        limits      table of the configurable resource limits
        memory_limit  memory shared by all links
        wire/       bytes <-> values: frames, messages, addresses
        link/       one neighbour: handshake, resume, multiplexed streams, flow control
        arq/        a reliable stream over a transport that loses packets
        routing/    many neighbours: paths, advertisements, routes
    net/            descriptors, clocks, signals and processes
        io/         the selector loop, channels, processes, copying, log
        transport/  URLs, sockets and devices that carry links
        link/       a protocol link, and an end of a tunnel, on descriptors
        daemon/     the node
        client/     the other end of the control socket
    config/         a TOML file: text -> checked records -> jobs
    api/            the library
    cli/            options, --help, manual and completion from one declaration
    tools/          one module for each small tool, a folder for each large one
    box             dispatch on the name of the program
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .api.node import Node as Node
    from .api.node import NodeLink as NodeLink
    from .api.service import Service as Service
    from .api.session import Entry as Entry
    from .api.session import Session as Session
    from .api.session import dial as dial
    from .api.session import ls as ls
    from .api.session import ping as ping
    from .api.session import serve as serve
    from .errors import AddressError as AddressError
    from .errors import BusyError as BusyError
    from .errors import DaemonError as DaemonError
    from .errors import R2Error as R2Error
    from .errors import RefusedError as RefusedError
    from .errors import TransportError as TransportError
    from .errors import UsageError as UsageError
    from .version import __version__ as __version__

_HOMES = {
    "version": ("__version__",),
    "api.session": ("Entry", "Session", "dial", "ls", "ping", "serve"),
    "api.node": ("Node", "NodeLink"),
    "api.service": ("Service",),
    "errors": (
        "AddressError", "BusyError", "DaemonError", "R2Error", "RefusedError", "TransportError", "UsageError",
    ),
}  # fmt: skip
__all__ = [
    "__version__", "Entry", "Node", "NodeLink", "Service", "Session", "dial", "ls", "ping", "serve",
    "AddressError", "BusyError", "DaemonError", "R2Error", "RefusedError", "TransportError", "UsageError",
]  # fmt: skip


def __dir__() -> list[str]:
    """The names of the library too, for help() and completion, although they are imported lazily."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import a name of the library when it is first used; the tools use none."""
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module("." + home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
