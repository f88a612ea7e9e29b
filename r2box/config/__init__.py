"""The TOML file of a node: text -> checked records -> jobs that run.

    parse         text -> records, with all checks
    records       the content of a file
    toml_lines    line numbers of tables and keys
    node_manager  a daemon with the jobs of a file, and reloads
    jobs          the jobs that run a configuration
    tasks         commands that run on events
    placeholders  %NAME in these commands
"""
