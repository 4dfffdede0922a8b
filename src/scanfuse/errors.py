"""Errors that a user can cause and mend. The command line prints them as one line and exits with code 2."""

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake in the input, the options or the environment: says what is wrong and what to do, in one line."""
