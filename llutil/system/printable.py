"""Text of a program's, made fit to stand behind a prefix in a log.

A line of a rank's stands behind its name. Some characters would let it look like a line of somebody
else's: whatever else begins a new line (``str.splitlines`` knows ten such characters), moves the
cursor of a terminal, or reverses the order in which text is shown. They are shown as Python writes
them. Colours stay, and end with the line. This module may import only the standard library.
"""

from __future__ import annotations

import functools
import re

__all__ = ["is_plain", "printable", "printable_lines"]

_UNSAFE = re.compile(
    r"\x1b(?!\[[0-9;:]{0,64}m)"
    # Control characters but the tab and the one above, and what separates lines or paragraphs.
    r"|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029"
    # What changes the direction of text. Many at once: binary output is full of them.
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_NO_COLOUR = "\x1b[0m"


def printable(text: str) -> str:
    """``text`` as one line that shows all of itself behind its prefix, and nothing else."""
    shown = _UNSAFE.sub(_escaped, text)
    if _COLOUR.search(shown) and not shown.endswith(_NO_COLOUR):
        shown += _NO_COLOUR
    return shown


def printable_lines(text: str) -> list[str]:
    """The lines of ``text``, which are what newlines make of it, each as one line."""
    lines = text.removesuffix("\n").split("\n")
    if is_plain(text):
        return lines
    return [printable(line.removesuffix("\r")) for line in lines]


def is_plain(text: str) -> bool:
    """Whether all lines of ``text`` are ``printable`` as they are. It says no in doubt, and takes
    no longer than a look at each character.
    """
    return text.replace("\n", "").replace("\t", "").isprintable()


def _escaped(found: re.Match[str]) -> str:
    return "".join(map(_escape, found[0]))


@functools.cache  # there are less than a hundred of them
def _escape(unsafe: str) -> str:
    code = ord(unsafe)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
