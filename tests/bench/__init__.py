"""`make bench`: r2box measured beside what one would use instead, on the same data, in the same run.

    make bench                                     everything; takes a while, and nothing else should run
    make bench ARGS="--quick"                      everything with little data: does it work?
    make bench ARGS="--only hops,loaded --plots p"  two groups, and plots of them in p/

What is measured is a built copy of r2box (`--dist`), never the sources.  In the order of reading:

    runs        pure: repetitions, medians, ratios, what is held and what is lost
    report      the same as tables, as JSON, and a line of progress
    world       one directory and the processes in it, all of which end with it
    loads       the programs at both ends: source and sink, echo and pinger (run as programs, not imported)
    nodes       daemons, links and services of the built r2box
    ways        how two programs are joined: by r2box, and by each of its peers
    session     one run of the bench: options, the comparing of candidates, what came out
    bulk, rtt, startup, many, slow, lossy, counts, sweeps      the groups of measurements
    relay, library, by_asyncssh, by_reticulum, by_tcp          more programs that are run, not imported
    plots       the sweeps as SVG
    __main__    the command line

Two things make ratios fair.  Repetitions are interleaved (A B C A B C ...), so that a machine that gets slower for a
while does so for everybody.  And a ratio is taken within each round, not between medians of different times; what is
shown is the median of these ratios, and their range.
"""
