"""The rule that lmms-eval scores AI2D with (standard library only).

Source: EvolvingLMMs-Lab/lmms-eval `tasks/ai2d` (a regular-expression filter, then `exact_match` that ignores
case and punctuation), commit 75571cf. AI2D itself comes without a rule for free text.
"""

from __future__ import annotations

import re
import string

_LEADING = re.compile(r"^\s*([A-Z])\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def chosen_letter(text: str) -> str | None:
    """Return the letter that lmms-eval takes an answer to name, or None where it is no letter.

    >>> [chosen_letter(text) for text in ("B. the sun", "(c)", " D ", "B the sun", "")]
    ['B', 'C', 'D', None, None]
    """
    leading = _LEADING.match(text)
    answer = (leading[1] if leading else text).translate(_NO_PUNCTUATION).strip().upper()
    return answer if len(answer) == 1 and answer in string.ascii_uppercase else None
