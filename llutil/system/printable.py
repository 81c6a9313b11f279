"""Text of a program's, made fit to stand behind a prefix in a log.

A line of a rank's stands behind its name. Some characters would let it look like a line of somebody
else's: whatever else begins a new line (``str.splitlines`` knows ten such characters), moves the
cursor of a terminal, or reverses the order in which text is shown. They are shown as Python writes
them. Colours stay, and end with the line. This module may import only the standard library.
"""

from __future__ import annotations

import functools
import re

__all__ = ["printable", "printable_lines"]

_UNSAFE = re.compile(
    r"\x1b(?!\[[0-9;:]{0,64}m)"
    # Control characters but the tab, the newline and the one above, and what separates lines or
    # paragraphs.
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029"
    # What changes the direction of text. Many at once: binary output is full of them.
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"
)
_NO_COLOUR = "\x1b[0m"


def printable(text: str) -> str:
    """``text`` as one line that shows all of itself behind its prefix, and nothing else."""
    return _closed(_UNSAFE.sub(_escaped, text).replace("\n", "\\x0a"))


def printable_lines(text: str) -> list[str]:
    """The lines of ``text``, which are what newlines make of it, each as one line."""
    text = text.removesuffix("\n")
    # Usual text is known by a look at each character, which takes a fraction of the time.
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text.split("\n")
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
    lines = _UNSAFE.sub(_escaped, text).split("\n")
    return [_closed(line) for line in lines] if "\x1b" in text else lines


def _closed(shown: str) -> str:
    """``shown`` with an end of its colours: of what begins with an escape nothing else is left."""
    return f"{shown}{_NO_COLOUR}" if "\x1b" in shown and not shown.endswith(_NO_COLOUR) else shown


def _escaped(found: re.Match[str]) -> str:
    return "".join(map(_escape, found[0]))


@functools.cache  # there are less than a hundred of them
def _escape(unsafe: str) -> str:
    code = ord(unsafe)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
