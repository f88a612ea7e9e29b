"""Command line: each command is declared once; parser, --help, manual and completion are generated from that.

    command         options and arguments: declaration and parsing
    registry        table of all tools
    help            --help
    manual          section 1 manual pages
    pages           the manual in the archive
    completion      completion for bash, zsh and fish
    policy_options  options that set a policy
    tables          tables that fit the terminal
    output          JSON Lines
    background      --background
"""
