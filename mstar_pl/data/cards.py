"""Text of model cards and data cards; what models or strangers wrote stays text there."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from huggingface_hub import CardData


def card(front_matter: CardData, body: str, sections: Mapping[str, str] | None = None) -> str:
    r"""Return a card: front matter, which the hub reads, then Markdown.

    >>> print(card(CardData(license="mit"), "# Title", {"Seeds": "none"}), end="")
    ---
    license: mit
    ---
    # Title
    <BLANKLINE>
    ## Seeds
    <BLANKLINE>
    none
    """
    parts = [f"---\n{front_matter.to_yaml().strip()}\n---\n{body.strip()}"]
    parts += [f"## {title}\n\n{text.strip()}" for title, text in (sections or {}).items()]
    return "\n\n".join(parts) + "\n"


def escaped(text: object) -> str:
    r"""Return a text as Markdown that shows it on one line and does nothing else.

    >>> print(escaped("<b>*1*</b>\n# www.x.y"))
    &lt;b&gt;\*1\*&lt;/b&gt; \# www\.x\.y
    """
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:@])", r"\\\1", line)


def coded(text: object) -> str:
    """Return a text as a code span on one line; a space keeps a backtick at its end from the marks.

    >>> print(coded("a`b"), coded("`c`"))
    ``a`b`` `` `c` ``
    """
    line = " ".join(str(text).split())
    space = " " if "`" in line[:1] + line[-1:] else ""
    return f"{(ticks := _ticks(line, 1))}{space}{line}{space}{ticks}"


def listed(entries: Mapping[str, object]) -> str:
    r"""Return a Markdown list of names and values, each as it is.

    >>> print(listed({"rows": 3, "a*b": "x`y"}))
    - `rows`: `3`
    - `a*b`: ``x`y``
    """
    return "\n".join(f"- {coded(name)}: {coded(value)}" for name, value in entries.items())


def fenced(text: str, language: str = "") -> str:
    r"""Return a code block that the text in it cannot end.

    >>> print(fenced("a ``` b", "json").replace("\n", " / "))
    ````json / a ``` b / ````
    """
    ticks = _ticks(text, 3)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _ticks(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
