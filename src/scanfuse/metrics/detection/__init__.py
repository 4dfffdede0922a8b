"""How well objects are detected: average precision, curves, confusion, miss rate; see the modules."""
