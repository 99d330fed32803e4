"""Licences from copyright files: expressions, texts, the notice, and files that mean harm."""

from __future__ import annotations

import json
import time

import pytest

from builder.checks.copyright import SIZE_MAX, read_copyright
from builder.checks.licences import is_licence_file, licences_of, notice, read_licences, with_licences
from builder.model.digest import canonical_json
from builder.model.licence import NOASSERTION, Term, categories, parse_expression, refused
from builder.model.lock import LockedPackage
from builder.oci.filesystem import Entry, FileSystem
from tests.support.debs import locked

FORMAT = "Format: https://example.org/doc/copyright-format/1.0/\n\n"
MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a\ncopy of this software and associated "
    'documentation files (the "Software") ... The above copyright notice and this permission notice shall be included '
    "in all copies or substantial portions of the Software."
)


def _files(*licences: str) -> bytes:
    paragraphs = (f"Files: {n}/*\nCopyright: x\nLicense: {name}\n text\n" for n, name in enumerate(licences))
    return (FORMAT + "\n".join(paragraphs)).encode()


@pytest.mark.parametrize(
    ("said", "expression"),
    [
        (("Expat",), "MIT"),
        (("expat", "MIT"), "MIT"),
        (("GPL-2+", "BSD-3-clause"), "BSD-3-Clause AND GPL-2.0-or-later"),
        (("GPL-2",), "GPL-2.0-only"),
        (("LGPL-2.1+",), "LGPL-2.1-or-later"),
        (("GPL-2+ or Artistic",), "Artistic-1.0-Perl OR GPL-2.0-or-later"),
        (("GPL-2+ or Artistic, and Expat",), "(Artistic-1.0-Perl OR GPL-2.0-or-later) AND MIT"),
        (("GPL-2+ and Expat or ISC",), "(GPL-2.0-or-later AND MIT) OR ISC"),
        (("Expat and ISC or Zlib", "GPL-3"), "((ISC AND MIT) OR Zlib) AND GPL-3.0-only"),
        (("Expat or ISC, and Zlib", "GPL-3"), "(ISC OR MIT) AND Zlib AND GPL-3.0-only"),
        (("GPL-3+ with Autoconf exception",), "GPL-3.0-or-later WITH Autoconf-exception-2.0"),
        (("public-domain",), "LicenseRef-public-domain"),
        (("Odd Licence v3!",), "LicenseRef-Odd-Licence-v3"),
        (("GPL-2+ with sending-postcards exception",), "LicenseRef-GPL-2-with-sending-postcards-exception"),
    ],
)
def test_short_names_become_an_expression_that_parses(said: tuple[str, ...], expression: str) -> None:
    found = read_copyright(_files(*said))
    assert (found.how, found.expression) == ("declared", expression)
    parse_expression(expression)


def test_a_licence_without_an_spdx_name_comes_with_its_text() -> None:
    text = FORMAT + "Files: *\nLicense: Odd\n\nLicense: Odd\n You may.\n .\n But\x1b[31m smile.\n"
    assert read_copyright(text.encode()).texts == {"LicenseRef-Odd": "You may.\n\nBut[31m smile."}


def test_an_authors_copy_of_a_known_licence_is_that_licence_only_with_its_text() -> None:
    named = FORMAT + f"Files: *\nLicense: Expat-Miller\n {MIT}\n"
    assert read_copyright(named.replace("\ncopy", " copy").encode()).expression == "MIT"
    assert read_copyright(_files("Expat-Miller")).expression == "LicenseRef-Expat-Miller"


def test_files_whose_licence_is_not_named_count_too() -> None:
    text = FORMAT + "Files: *\nLicense: Expat\n\nFiles: po/*\nCopyright: x\n\nFiles: y\nLicense:\n Ask me.\n"
    found = read_copyright(text.encode())
    assert (found.expression, found.how) == ("LicenseRef-unsaid AND MIT", "declared")
    assert found.texts == {"LicenseRef-unsaid": "no licence is named"}
    assert "unknown" in categories(found.expression)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("It is under /usr/share/common-licenses/GPL-2, version 2 or any later version.", "GPL-2.0-or-later"),
        ("See /usr/share/common-licenses/GPL-2.", "GPL-2.0-only"),
        ("See `/usr/share/common-licenses/Apache-2.0'.", "Apache-2.0"),
        (f"Copyright X\n\n{MIT}", "MIT"),
        (f"{MIT}\nAlso see /usr/share/common-licenses/LGPL-2.1", "LGPL-2.1-only AND MIT"),
        ("The tables are public; this file is in the public domain.", "LicenseRef-public-domain"),
    ],
)
def test_a_file_for_people_is_recognised_by_pointers_and_whole_texts(text: str, expression: str) -> None:
    found = read_copyright(text.encode())
    assert (found.how, found.expression) == ("recognised", expression)


# After libxcrypt's copyright file, item by item; it names the folder of the common licences and none of them.
INVENTORY = """\
On Debian systems the complete text of the licenses can be found in
/usr/share/common-licenses/ .

This file provides an
inventory of the copyright holders and licenses of all files in the source tree.

 * Copyright A; LGPL (v2.1 or later):
   crypt.c
 * Copyright David Burren et al.; 3-clause BSD:
   alg-des.h, alg-des.c

 * Public domain, written by Ulrich Drepper et al.:
   crypt-sha256.c

 * Copyright B,
   C; 0-clause BSD:
   x.c

 * Copyright D; GPL (v3 or later), with Autoconf exception:
   m4/a.m4
"""


def test_a_list_of_all_files_is_read_item_by_item() -> None:
    found = read_copyright(INVENTORY.encode())
    assert (found.how, found.expression) == (
        "recognised",
        "0BSD AND BSD-3-Clause AND GPL-3.0-or-later WITH Autoconf-exception-2.0 AND LGPL-2.1-or-later AND LicenseRef-public-domain",
    )
    parse_expression(found.expression)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("Copyright holders unknown, no statement of license", "LicenseRef-no-statement"),
        ("Copyright E, who said nothing", "LicenseRef-no-statement"),
        ("Copyright E; by asking him", "LicenseRef-by-asking-him"),
    ],
)
def test_what_a_list_says_in_other_words_is_a_licence_of_its_own_with_that_text(
    item: str, expected: str
) -> None:
    found = read_copyright(f"{INVENTORY}\n * {item}:\n   y.c\n".encode())
    assert expected in found.expression.split(" AND ")
    assert found.texts[expected] == item


@pytest.mark.parametrize(
    "text",
    [
        INVENTORY.replace("inventory of the copyright holders", "selection of the copyright holders"),
        INVENTORY + "\n * Copyright F; MIT, without an end\n",
        INVENTORY + "\n * Copyright G; " + "x" * 500 + ":\n   y.c\n",
        INVENTORY + "\n * Copyright H; 0-clause BSD:\n   y.c\n" * 2001,
    ],
)
def test_a_list_that_is_none_or_is_not_whole_is_unknown(text: str) -> None:
    assert read_copyright(text.encode()).how == "unknown"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"All rights reserved.",
        b"\xff\xfe\x00\x01" * 100,
        b"see /usr/share/common-licenses/ for them",
        b"see /usr/share/common-licenses/NOBODYS",
        b"x" * (SIZE_MAX + 1),
        FORMAT.encode(),
        (FORMAT + "Files: *\nCopyright: x\n").encode(),
        _files("a" * 501),
        _files(", ".join(["MIT"] * 30)),
        _files(*(f"L-{n}" for n in range(300))),
    ],
    ids=[
        "empty",
        "words",
        "binary",
        "folder",
        "no-such",
        "huge",
        "no-files",
        "no-licence",
        "long",
        "many",
        "flood",
    ],
)
def test_what_tells_no_licence_is_unknown_and_not_guessed(data: bytes) -> None:
    found = read_copyright(data)
    assert (found.how, found.expression) == ("unknown", NOASSERTION)


@pytest.mark.parametrize(
    "data",
    [
        (FORMAT + "Files: *\nLicense: " + "a and " * 20_000).encode(),
        (FORMAT + "Files: *\nLicense: MIT\n" + " \n" * 500_000).encode(),
        (FORMAT + "A:\n\n" * 200_000).encode(),
        b"permission is hereby granted " * 60_000,
        b"/usr/share/common-licenses/GPL-2 " * 60_000,
        (" " * 1_900_000).encode(),
    ],
    ids=["ands", "blanks", "paragraphs", "sentences", "pointers", "white"],
)
def test_a_hostile_file_takes_no_more_than_its_reading(data: bytes) -> None:
    before = time.process_time()
    read_copyright(data[:SIZE_MAX])
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MIT AND",
        "(MIT",
        "MIT)",
        "MIT OR OR ISC",
        "MIT ISC",
        "(" * 100 + "MIT" + ")" * 100,
        "a;b",
        "M" * 30_000,
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        parse_expression(text)


def test_of_a_choice_one_is_enough_and_of_a_list_all_count() -> None:
    def permissive(term: Term) -> bool:
        return term.category == "permissive"

    assert refused(parse_expression("MIT OR GPL-2.0-only"), permissive) == ()
    assert refused(parse_expression("MIT AND (GPL-2.0-only OR ISC)"), permissive) == ()
    assert refused(parse_expression("MIT AND GPL-2.0-only"), permissive) == (Term("GPL-2.0-only"),)
    assert categories("GPL-3.0-or-later WITH GCC-exception-3.1 AND MIT AND Odd") == (
        "permissive",
        "weak-copyleft",
        "unknown",
    )


def _package(name: str, source: str = "") -> LockedPackage:
    return locked(name, b"x", source or name)


def _tree(contents: dict[str, bytes], links: dict[str, str]) -> FileSystem:
    entries = {p: Entry("file", 0o644, 0, 0, len(d), "", ()) for p, d in contents.items()}
    entries |= {p: Entry("link", 0o777, 0, 0, 0, target, ()) for p, target in links.items()}
    return FileSystem(entries, contents)


def _spdx(*names: str) -> bytes:
    packages = [{"name": n, "versionInfo": "1", "licenseDeclared": "NONE"} for n in names]
    image = {"name": "image", "primaryPackagePurpose": "CONTAINER"}
    return canonical_json({"packages": [image, *packages], "spdxVersion": "SPDX-2.3"})


def test_the_spdx_document_holds_expressions_texts_and_each_copyright_file_once() -> None:
    one, odd = _files("Expat"), _files("Odd")
    tree = _tree(
        {
            "usr/share/doc/own/copyright": one,
            "usr/share/doc/odd/copyright": odd,
            "usr/share/doc/gpl/copyright": b"See /usr/share/common-licenses/GPL-2",
            "usr/share/common-licenses/GPL-2": b"GNU\x07 ...",
            "usr/share/common-licenses/GPL-3": b"not asked for",
        },
        {
            "usr/share/doc/linked": "own",
            "usr/share/doc/file/copyright": "../own/copyright",
            "usr/share/doc/out/copyright": "/../../etc/shadow",
        },
    )
    names = ("own", "linked", "file", "odd", "gpl", "out", "shared", "none")
    packages = [_package(n, "own" if n == "shared" else "") for n in names]
    read = read_licences(tree, packages)
    document = json.loads(with_licences(_spdx(*names), read))
    told = {p["package"]: (p["licence"], p["how"]) for p in licences_of(document)}
    assert told == {
        **dict.fromkeys(("own", "linked", "file", "shared"), ("MIT", "declared")),
        "odd": ("LicenseRef-Odd", "declared"),
        "gpl": ("GPL-2.0-only", "recognised"),
        "out": (NOASSERTION, "unknown"),
        "none": (NOASSERTION, "unknown"),
    }
    assert {i["licenseId"] for i in document["hasExtractedLicensingInfos"]} >= {"LicenseRef-Odd"}
    text = notice(document)
    assert text.count("Files: 0/*\nCopyright: x\nLicense: Expat") == 1
    assert "file, linked, own, shared\n" in text
    assert "/usr/share/common-licenses/GPL-2\n" in text
    assert "GNU ..." in text
    assert "not asked for" not in text
    # The order of packages and of entries does not count.
    again = read_licences(FileSystem(dict(reversed(tree.entries.items())), tree.contents), packages[::-1])
    assert with_licences(_spdx(*names), again) == with_licences(_spdx(*names), read)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("usr/share/doc/a/copyright", True),
        ("usr/share/common-licenses/GPL-2", True),
        ("usr/share/doc/a/examples/copyright", False),
        ("usr/share/doc/copyright", False),
        ("etc/copyright", False),
    ],
)
def test_only_licence_files_are_read(path: str, read: bool) -> None:
    assert is_licence_file(path) is read
