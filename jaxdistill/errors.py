"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Diverged(UserError):
    """A training that came to numbers that are not finite."""
