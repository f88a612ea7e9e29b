"""Where the descriptors, clocks, signals and processes are: `proto` joined to the machine."""
