"""The engines, one module per verb of the command line. They know protocols, and ask no system what it is."""
