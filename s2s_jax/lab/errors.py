"""What the lab says to its user when it cannot go on."""


class LabError(ValueError):
    """One line for the user: what is wrong, where, and what to do.

    It starts in lower case (names as they are spelt), joins its parts by semicolons, and has no
    full stop. The command line prints it on stderr and ends with exit code 2, without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))
