"""The benchmarks' own rules, as pure functions: from an answer to what it counts (standard library only).

Each follows the published evaluation code that it names. Multiple-choice rules return the letter that an
answer is taken to name; it is compared with the gold letter as it is.
"""
