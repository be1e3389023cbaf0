"""Methods: one function each, whose arguments are the knobs of the command line."""
