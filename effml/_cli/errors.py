"""How a command fails: one clear sentence on stderr and an exit code, never a traceback."""

NOT_EQUAL = 1
BAD_INPUT = 2
NOTHING_FITS = 3
INTERRUPTED = 130  # what shells give a command that Ctrl-C ended


class CommandError(Exception):
    """Ends the command with `message` on stderr and `exit_code`."""

    def __init__(self, message, exit_code=BAD_INPUT):
        super().__init__(message)
        self.exit_code = exit_code
