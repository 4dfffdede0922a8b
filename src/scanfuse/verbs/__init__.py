"""The engines, one module per verb of the command line. They run every system through its protocol and ask no kind."""
