"""The TOML file of a node: text -> checked records -> jobs that run.

    parse         text -> records, with all checks
    records       what a file says
    toml_lines    line numbers of tables and keys
    jobs          what runs for each table
    tasks         commands that run on events
    placeholders  %NAME in these commands
"""
