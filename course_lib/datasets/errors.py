"""What can go wrong with a data set. Every message is for the learner: what happened, and what to do."""


class DataError(RuntimeError):
    """A data set cannot be used; also raised itself where the disk is full or may not be written."""


class DataUnavailable(DataError):
    """The data set is not on this machine and cannot be downloaded now."""


class SplitUnavailable(DataError):
    """The archive on this machine does not contain the requested split."""


class ArchiveDamaged(DataError):
    """The archive on this machine is not what it should be: truncated, altered, or a different file."""
