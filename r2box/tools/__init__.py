"""One module for each tool: its COMMAND (options, help, manual) and `main(args)`, which returns the exit status."""
