"""Responses as no model should write them: mutated solutions, bombs of every notation, noise."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mstar_pl.rewards.answer import RULES, grade
from mstar_pl.types import Prompt

SOLUTIONS = (
    "The blue book costs 7 dollars.\n\nThe red one costs 5 dollars.\n\nAdd: 7 + 5 = 12.\n\n# Answer\n\n12",
    "Both angles are 35 degrees.\n\nSo x = 180 - 70 = 110.\n\nThe answer is \\boxed{110^\\circ}.",
    "Reading the chart, 2019 has the highest bar.\n\n**Final answer:** (C) 2019",
    "By Pythagoras, $c = \\sqrt{3^2 + 4^2} = 5$ cm, half \\frac{5}{2}.\n\n# Answer\n\n$\\frac{5}{2}$ cm",
    "The list is [1, 2.5, 3].\n\n# Answer\n\n[1, 2.5, 3]",
    "答案是 B。",
    "I cannot see an image.",
)
"""Shaped as responses are."""

BOMBS = (
    "9**9**9",
    "9^{9^{9^{9}}}",
    "9^9^9^9^9",
    "2^{10^{12}}",
    "1e999999999",
    "1e-999999999",
    "10^{10^{10}}!",
    "(10^9)!",
    "factorial(1000000000)",
    "\\binom{10^9}{5 \\cdot 10^8}",
    "\\sum_{i=1}^{10^{12}} i^2",
    "\\prod_{k=1}^{10^9} k",
    "\\int_0^{\\infty} e^{-x^2} \\sin(x^{17}) dx",
    "x^{1000000} = (x+1)^{999999}",
    "(x+1)^{5000}",
    "\\sqrt{" * 500 + "2" + "}" * 500,
    "\\frac{" * 2000,
    "\\frac{1}{" * 300 + "2" + "}" * 300,
    "(" * 50_000 + "1" + ")" * 50_000,
    "[" * 30_000,
    "{" * 30_000,
    "\\boxed{" * 10_000,
    "\\left(" * 3000,
    "1" * 100_000,
    "0." + "3" * 100_000,
    "1," * 40_000,
    "1/" * 30_000 + "1",
    "-" * 50_000 + "1",
    "1+" * 20_000 + "1",
    "x=" * 20_000 + "1",
    "$" * 50_000,
    "*" * 50_000,
    "\\" * 50_000,
    "# Answer\n\n" * 8000,
    "The answer is " * 6000,
    "answer: " * 10_000,
    "(A) " * 20_000,
    "A or B or " * 8000,
    "\n" * 80_000,
    " " * 80_000 + "x",
    "a" * 100_000,
    "1 " * 40_000,
    "one hundred and " * 5000,
    "half of a dozen " * 5000,
    "Question: " * 8000,
    "\n\nQuestion 1:" * 6000,
    "__import__('os').system('touch hacked')",
    "().__class__.__bases__[0].__subclasses__()",
    'exec(\'open("hacked", "w")\')',
    "lambda: 0",
    "\\input{/etc/passwd}",
    "\\def\\x{\\x\\x}\\x",
    "\\newcommand{\\a}{\\a\\a}\\a",
    "%s%s%n{0}{x.__class__}",
    "1/0",
    "0^0",
    "0/0",
    "nan",
    "-inf",
    "\\infty - \\infty",
    "\\log(0)",
    "\\sqrt{-1}",
    "√√√√4",
    "٣٤",
    "½¼⅞",
    "\uff11\uff12",
    "½" * 20_000,
    "²" * 20_000,
    ".," * 3900,
    "\u202e21",
    "\u200b" * 1000 + "12",
    "\0\0",
    "\ud800",
    "😀" * 10_000,
    "\x1b[31m12\x1b[0m",
)
"""Whole answers that are made to hang, to fill the memory, or to run."""

PIECES = (
    "12", "3.5", "-7", "1,200", "1.2e3", "50%", "$5", "5 cm", "5 cm^2", "\\frac{1}{2}", "1/2", "2 1/2",
    "\\pi", "π", "\\sqrt{2}", "2^{3}", "x", "x = 5", "A", "(B)", "B.", "yes", "No", "twelve",
    "\\text{12}", "\\boxed{12}", "\\boxed{", "}", "{", "(", ")", "[1, 2]", ",", ";", ":", "=", "+", "-",
    "*", "^", "_", "\\", "$", "$$", "#", "**", "# Answer", "\n\n", "\n", " ", "answer is",
    "Final answer:", "Question:", "and", "or", "not", "°", "\u2032", "≈", "<", "&", "%", "~", "`", "\"",
    "'", "\\left", "\\right", "\\mathrm{cm}", "\\cdot", "\\times", "é", "中", "ß", "\u00a0",
)  # fmt: skip

GOLDS: tuple[tuple[str, str, dict], ...] = (
    ("12", "integer", {}),
    ("2.5", "float", {"precision": 1}),
    ("2.5", "text", {"unit": "cm"}),
    ("\\frac{5}{2}", "text", {}),
    ("x^2 + 1", "text", {}),
    ("[1, 2.5, 3]", "list", {}),
    ("2019", "text", {"choices": ("2017", "2018", "2019", "\\frac{5}{2}"), "question_type": "multi_choice"}),
    ("Yes", "text", {}),
    ("12", "text", {}),
)


@dataclass
class Fuzzed:
    """What a run found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slow: list[tuple[float, str]] = field(default_factory=list)
    raised: list[tuple[str, str]] = field(default_factory=list)
    slowest: float = 0.0


def prompts() -> list[Prompt]:
    """Return a prompt for each kind of answer."""
    return [
        Prompt(id=str(n), question="Which?", answer=gold, answer_type=kind, **options)  # type: ignore[arg-type]
        for n, (gold, kind, options) in enumerate(GOLDS)
    ]


def responses(seed: int) -> Iterator[str]:
    """Yield responses for ever."""
    rng = random.Random(seed)
    for bomb in BOMBS:
        yield from (bomb, f"So.\n\n# Answer\n\n{bomb}", f"\\boxed{{{bomb}}}", f"The answer is {bomb}.")
    while True:
        kind = rng.random()
        if kind < 0.45:
            yield mutated(rng, rng.choice(SOLUTIONS))
        elif kind < 0.9:
            yield "".join(rng.choice(PIECES) + rng.choice(("", "", " ")) for _ in range(rng.randint(1, 60)))
        elif kind < 0.97:
            yield mutated(
                rng, rng.choice(SOLUTIONS).replace("12", rng.choice(BOMBS)[: rng.choice((20, 200, 5000))])
            )
        else:
            yield "".join(
                chr(rng.choice((rng.randrange(128), rng.randrange(0xD7FF))))
                for _ in range(rng.randint(0, 300))
            )


def mutated(rng: random.Random, text: str) -> str:
    """Delete, repeat, swap and insert pieces of a text."""
    for _ in range(rng.randint(1, 8)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        change = rng.randrange(4)
        middle = {0: "", 1: text[a:b] * rng.choice((2, 3, 50)), 2: text[a:b][::-1], 3: rng.choice(PIECES)}[
            change
        ]
        text = (text[:a] + middle + text[b:])[:20_000]
    return text


def fuzz(num: int, seed: int, limit_s: float = 1.0) -> Fuzzed:
    """Grade hostile responses by all rules and note exceptions and what took longer than the limit."""
    found, asked, rng = Fuzzed(), prompts(), random.Random(seed)
    for _, response in zip(range(num), responses(seed), strict=False):
        prompt, rules = rng.choice(asked), rng.choice(RULES)
        began = time.perf_counter()
        try:
            found.outcomes[str(grade(response, prompt, rules).outcome)] += 1
        except Exception as error:
            found.raised.append((f"{type(error).__name__}: {error}"[:200], response[:100]))
        seconds = time.perf_counter() - began
        found.slowest = max(found.slowest, seconds)
        if seconds > limit_s:
            found.slow.append((seconds, f"{prompt.answer!r} {rules}: {response[:100]!r}"))
    return found
