"""The command line: one declaration for each command, of which parsing, --help, manual and completion are made.

    command         options and arguments: declaration and parsing
    registry        which tools there are
    help            --help
    manual          section 1 manual pages
    pages           the manual that travels in the file
    completion      completion for bash, zsh and fish
    policy_options  options that set a policy
    tables          columns that fit the terminal
    background      --background
"""
