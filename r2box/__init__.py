"""r2box: programs joined to programs, on one machine and across many, by one rule.

    r2 f n0 (RouteTo n1 msg) = f n1 (RoutedFrom n0 msg)

In the order of reading; imports run the same way, and `proto` never imports `net`:

    errors      what can go wrong, and the exit statuses
    proto/      the protocol, pure: no descriptor, no clock, no randomness
        address, wire, body   names; frames and messages as bytes
        route, stream         the rule; one end of a tunnel
        outcome               how a tunnel ended
        budget, flight        how much may come; how much may be on its way
        outbox                what goes out next
        sender, session       these three as one row of bytes; what survives when the transport is cut
        greeting, pulse       how a link begins; whether the neighbour is still there
        job_states            states of links, services and forwards
        limits, memory_limit  what neighbours may cost, as a table; memory that links share
        stream_table          the streams of a link, their labels and their number
        attached              descriptors that came with a message
        link, owner           one neighbour; who hears from it
        whole                 the boundaries of datagrams in a stream
        meter, attempt        what measurements are answered with; a tunnel that is being opened, by one way or another
        policy, advert        who may; what neighbours tell each other of the network, as bytes
        table, damper         routes and the best of them; what never comes to rest
        allowance             so much a second, and no more
        neighbour, discovery  what one neighbour was told and has said; what a node knows of others
        listing, probes       what it answers; whom it asks
        link_collision        two links to one neighbour
        node                  all of it together
        preamble              where a link begins behind what a command writes first
        packet, pace          packets that find their own boundaries; how fast they may go
        carrier_in, carrier_out, carrier   what has come; what is to arrive; both as a reliable stream
        faults                a bad network, for rehearsals
        terminal              a program on a terminal far away, as frames of a tunnel
        screen                a status line on the screen of another program
    net/        the only descriptors, clocks, signals and processes
        loop, channel, driver      the event loop; bytes in and out; a link on them
        memory, packets            what is read into; a link on what loses packets
        endpoint, guest, exchange  the local ends of tunnels; who asks for them; who is given them
        starts                     which tunnels a server is asked to start, and how many programs there may be
        doubt                      ways that lead to nobody
        admission, trim            which links stay: pending, suspended, memory; memory given back to the system
        report, peer               what a daemon tells of its links, tunnels and jobs; remote addresses
        job, job_table             states of jobs, as a program reports them and as the daemon knows them
        entrance, daemon           where clients come in; a node
        scheme, transport, units   built-in transports as a table; TRANSPORT parsed; times with a unit
        hints                      the URL that was meant by what is almost one
        rules, asking              the policy of a link as it is written; questions answered by the page
        words, shell, child        the words of a command line; what sh is given for it; its process
        leash                      what ends programs when what started them was killed
        starter                    command lines that start links
        opening                    the first bytes of a transport
        sockaddr                   socket addresses as text
        connecting, eyeballs       a connection to one address; a race of those to all addresses of a name
        dial, datagram, device     sockets of all kinds; a link per sender; serial lines, terminals, tun
        whole, senders             datagrams at the ends of tunnels; a tunnel for each sender of UDP
        client, connector, server  what tools do at that socket: ask, make links, offer services
        bridge, forward            a device and a stream; a tunnel for each connection
        engine                     a daemon in somebody else's process
        placeholders               %NAME in a task's command
        keeper, tasks, gauge       links that are made again; commands for what comes and goes; measurements
        view, columns              a daemon's report as rows; rows as tables
        ferry, reserve             descriptors where none can pass; those that are kept back for one more request
        socket_path                where the control socket is
        reach, socketfile          finding the daemon; the file of its control socket
        splice, log                stdin and stdout; words on stderr
        supervisor, user           who started the daemon and watches over it; whom it runs as
        background                 the process that was started returns when the node is ready
        frames                     both ends of a shell's tunnel: streams within their credit
        heartbeat, statusline      whether the other end of a shell answers; what the user sees of it
        usertty                    the terminal that the user sits at
        faulty, relay              lines that misbehave; the same for UDP
    service     a service as an iterator that can be closed
    library     tunnels and services as sockets, for programs in Python
    embedded    a daemon inside such a program
    config      a TOML file, checked; toml_lines: where its keys are; records: what it says; parts: what runs for it
    policy_options   a link's policy as options
    version     the version
    command     words as options; usage: --help; manual: man pages
    tools/      one module for each command
    index, own  which tools there are; what r2box does under its own name
    pages       the manual that travels in the file
    completion  what a shell offers at Tab
    box         from the name it was called by to the tool
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .embedded import Link as Link
    from .embedded import Node as Node
    from .errors import AddressError as AddressError
    from .errors import BusyError as BusyError
    from .errors import DaemonError as DaemonError
    from .errors import R2Error as R2Error
    from .errors import RefusedError as RefusedError
    from .errors import TransportError as TransportError
    from .errors import UsageError as UsageError
    from .library import Entry as Entry
    from .library import Session as Session
    from .library import dial as dial
    from .library import ls as ls
    from .library import ping as ping
    from .library import serve as serve
    from .service import Service as Service
    from .version import __version__ as __version__

_HOMES = {
    "version": ("__version__",),
    "library": ("Entry", "Session", "dial", "ls", "ping", "serve"),
    "embedded": ("Link", "Node"),
    "service": ("Service",),
    "errors": (
        "AddressError", "BusyError", "DaemonError", "R2Error", "RefusedError", "TransportError", "UsageError",
    ),
}  # fmt: skip
__all__ = [
    "__version__", "Entry", "Link", "Node", "Service", "Session", "dial", "ls", "ping", "serve",
    "AddressError", "BusyError", "DaemonError", "R2Error", "RefusedError", "TransportError", "UsageError",
]  # fmt: skip


def __dir__() -> list[str]:
    """For `help` and for who types Tab: the library's names before anybody has used them."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """The library's names are loaded when somebody asks for them: no tool needs them."""
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module("." + home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
