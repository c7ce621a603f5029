"""CITATION.cff as BibTeX: the software, then the works that it names."""

import re
from pathlib import Path
from typing import Any

import yaml

KINDS = {"conference-paper": "inproceedings", "article": "article"}
SPECIAL = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\~{}", "^": r"\^{}"}


def read(path: Path) -> dict[str, Any] | None:
    """The file; None where there is none that can be read."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) and found.get("title") else None


def entries(cff: dict[str, Any]) -> list[str]:
    """One BibTeX entry each."""
    return [_entry(cff), *(_entry(work) for work in cff.get("references") or ())]


def doi(cff: dict[str, Any]) -> list[tuple[str, str]]:
    """(DOI, what it is) of the works that are named."""
    some = [one for work in cff.get("references") or () for one in work.get("identifiers") or ()]
    return [(str(one["value"]), str(one.get("description", one["value"]))) for one in some if one.get("type") == "doi"]


def _entry(work: dict[str, Any]) -> str:
    kind = KINDS.get(str(work.get("type")), "misc")
    names = [_name(one) for one in work.get("authors") or ()]
    number = next((one["value"] for one in work.get("identifiers") or () if one.get("type") == "doi"), None)
    fields = {
        "title": work.get("title"),
        "author": " and ".join(names),
        "booktitle": (work.get("conference") or {}).get("name"),
        "year": work.get("year"),
        "version": work.get("version"),
        "doi": work.get("doi") or number,
        "license": work.get("license"),
    }
    first = (work.get("authors") or [{}])[0].get("family-names") or work.get("title", "")
    first = (re.findall(r"[a-z]+", str(first).lower()) or ["software"])[0]
    lines = [f"  {name} = {{{_escaped(str(value))}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{first}{work.get('year', '')},\n" + ",\n".join(lines) + "\n}"


def _name(one: dict[str, Any]) -> str:
    if one.get("family-names"):
        return f"{one['family-names']}, {one.get('given-names', '')}".rstrip(", ")
    return f"{{{one.get('name', '')}}}"


def _escaped(text: str) -> str:
    """Braces that keep a name together stay."""
    whole = re.fullmatch(r"\{(.*)\}", text)
    inner = "".join(SPECIAL.get(sign, sign) for sign in (whole[1] if whole else text))
    return f"{{{inner}}}" if whole else inner
