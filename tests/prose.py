"""
Find phrases that are not plain technical English.

It reads documentation, docstrings, comments, messages and test names.

    python -m tests.prose [--fail] [FILE…]

Without files it reads the whole repository. `--fail` makes the exit code 1 if there are findings.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# A regular expression, and what to write instead.
PHRASES = {
    r"\bgiv(e|es|ing)\b(?! up| way)": "return, pass, set, have",
    r"\b(tells?|told|says|said)\b": "report, print, log, describe, name",
    r"\b(whoever|whatever|whichever)\b": "name the subject",
    r"\b(nobody|somebody|anybody)\b": "name the subject",
    r"(?<![Tt]here )\b(is|are|was|were) no(?:ne)?\b(?! longer| more)": "is not a …, does not exist",
    r"\bto be had\b|\bbe had\b": "available, found, supported",
    r"\b(is|are|was|were) (not )?there\b(?! a| an)": "exists, is available",
    r"\bone's own\b": "your own, user-defined",
    r"\b(of ours|of yours|of theirs)\b": "our own, your own",
    r"\bat hand\b": "available, local",
    r"\bfor a look\b|\blooks? (for|at) (it|them) afterwards\b": "to inspect",
    r"\banew\b": "again",
    r"\bdear\b": "expensive",
    r"\bfor want of\b|\bwant of\b": "because … is missing, out of memory",
    r"\bgo(es)? on\b": "continue",
    r"\blet(s|ting)? go of\b": "release",
    r"\bsees? to (it)?\b": "make sure",
    r"\bbut for\b": "except for",
    r"\bbesides\b": "in addition to, other than",
    r"\b(came|comes|come|becomes?|became) of\b": "result, outcome",
    r"\bso (many|much|long) (seconds|bytes|lines)\b": "the given number of",
    r"\b(has|have|had) (it|them) \w+ed\b": "name the subject and use an active verb",
    r"(?<![.?!:|] )(?<!^)\bwhat (is|was|are|were|has|had|stands|runs|comes)\b(?! new| wrong)": "use a noun",
    r"(?<![.?!:] )(?<!^)\bwho (is|was|has|had|asks|waits)\b": "name the subject",
    r"\b(the house|floors?|doors?|rooms?|the face|the paper)\b": "architecture, layer, module, public API",
    r"\b(knocks?|knocking|greets?|greeting)\b": "probe, ping",
    r"^(Have|Say|Tell|Give)\b": "start with what the function does",
}


def files() -> list[Path]:
    """Return the texts of the repository."""
    done = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "Makefile"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in done.stdout.splitlines()]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that people read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_prose(text, with_strings="tests" not in path.relative_to(ROOT).parts)
    else:
        is_code = False
        for number, line in enumerate(text.splitlines(), 1):
            is_code ^= line.startswith("```")
            if not is_code and not line.startswith("    "):
                yield number, re.sub(r"`[^`]*`", "`…`", line)


def python_prose(text: str, *, with_strings: bool) -> Iterator[tuple[int, str]]:
    """
    Yield comments, docstrings and test names.

    With *with_strings*, also yield all strings with a space in them.
    """
    is_first = True  # whether a string would be a docstring or another statement of its own
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_string = token.type == tokenize.STRING or tokenize.tok_name[token.type] == "FSTRING_MIDDLE"
        if token.type == tokenize.COMMENT or (
            is_string and (is_first or (with_strings and " " in token.string))
        ):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, re.sub(r"`[^`]*`", "`…`", line.strip(" #\"'"))
        elif previous == "def" and token.string.startswith("test_"):
            yield token.start[0], token.string.replace("_", " ")
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            is_first = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
            previous = token.string


def findings(path: Path) -> Iterator[str]:
    """Yield a line for each phrase that is found in a file."""
    for number, line in prose(path):
        for pattern, better in PHRASES.items():
            for match in re.finditer(pattern, line):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r} ({better}): {line.strip()}"


def main() -> int:
    """Print the findings; return 1 if there are some and `--fail` is set."""
    arguments = [Path(name).resolve() for name in sys.argv[1:] if name != "--fail"]
    paths = [path for path in arguments or files() if path != Path(__file__).resolve()]
    lines = [line for path in paths for line in findings(path)]
    print("".join(f"{line}\n" for line in lines), end="")
    print(f"{len(lines)} phrases that are not plain technical English")
    return int("--fail" in sys.argv and lines != [])


if __name__ == "__main__":
    sys.exit(main())
