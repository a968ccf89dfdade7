"""Text files that people write, as bytes: UTF-8, with or without the byte order mark of editors on Windows."""

from bandit.errors import CatalogueError, Problem


def decoded(data: bytes, file: str) -> str:
    """Text of a file's bytes, in UTF-8. Raises CatalogueError, with the line, for other bytes; `file` is for the
    message.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CatalogueError(file, [Problem(f"line {line}", "not UTF-8", "save the file as UTF-8")]) from None
