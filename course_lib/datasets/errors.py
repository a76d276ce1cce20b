"""What can go wrong with a data set. Every message is for the learner: what happened, and what to do."""


class DataError(RuntimeError):
    """A data set cannot be used; also raised itself where the disk is full or may not be written."""


class DataUnavailable(DataError):
    """The data set is not on this machine and cannot be downloaded now."""


class SplitUnavailable(DataError):
    """The archive that is here does not hold the split that was asked for."""


class ArchiveDamaged(DataError):
    """The archive that is here is not what it should be: cut short, altered, or another file altogether."""
