"""Run by the browser's own Python: compile modules without their docstrings into one archive that it can import from.

The archive is not compressed: what is sent is, as a whole, and importing then costs no time for it.
"""

import ast
import importlib._bootstrap_external as machinery
import zipfile
from pathlib import Path


def compiled(source: str, name: str) -> bytes:
    """The bytes of a ``.pyc`` that is never compared with its source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not body:
            continue
        if (
            isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:] or [ast.Pass(lineno=body[0].lineno, col_offset=0)]
    return bytes(machinery._code_to_hash_pyc(compile(tree, name, "exec"), b"\0" * 8, False))


def pack(listed: list[tuple[str, str]], target: str) -> None:
    """Write the archive.

    Args:
        listed: (path of a source, its name in the archive), in order.
        target: the archive.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, name in listed:
            source = Path(path).read_text(encoding="utf-8") if path else ""
            archive.writestr(zipfile.ZipInfo(name.removesuffix(".py") + ".pyc"), compiled(source, name))
