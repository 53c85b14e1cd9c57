"""What to say where a package of the extra ``notebook`` is missing: most of the library needs PyTorch only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_notebook_extra(what: str) -> Iterator[None]:
    """Turn a missing package into an error that says where it comes from.

    >>> with needs_notebook_extra("kexue_lib.plotting"):
    ...     import no_such_package
    Traceback (most recent call last):
    ImportError: kexue_lib.plotting needs no_such_package, which the extra 'notebook' brings: in a copy of the
    repository, pip install -e ".[notebook]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{what} needs {error.name}, which the extra 'notebook' brings: in a copy of the repository, "
            'pip install -e ".[notebook]"',
            name=error.name,
        ) from error
