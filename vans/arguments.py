"""Arguments as people type them: names and questions that begin with a dash, options cut short."""

import re


def plain(arguments: list[str], options: dict[str, bool]) -> list[str]:
    """The arguments of a command, put so that argparse takes values and names that begin with "-" for what they are.

    options: which there are, and whether each takes a value. What is no option is a positional argument: too many
    are refused by argparse, with their names.
    """
    given: list[str] = []
    names: list[str] = []
    rest = iter(arguments)
    for text in rest:
        head, equals, value = text.partition("=")
        longer = [name for name in options if head[2:] and name.startswith(head)]  # --out for --output
        option = head if head in options else longer[0] if len(longer) == 1 else None
        misspelt = option is None and re.fullmatch("--[a-z][a-z-]*", head)  # argparse says so
        if text == "--":
            names += rest
        elif option is None:
            (given if text[:2] in options or misspelt else names).append(text)  # -oNAME
        elif equals:
            given.append(option + equals + value)
        elif options[option] and (following := next(rest, None)) is not None:
            given.append(f"{option}={following}" if option.startswith("--") else option + following)
        else:
            given.append(option)
    return [*given, "--", *names] if names else given
