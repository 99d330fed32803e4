"""A template that never ends, grows, or reaches for something is refused soon, with file and line."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from builder.errors import DefinitionError, Problem
from builder.model.digest import Digest
from builder.model.image import BuildContext
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.stages.define import load_catalogue
from builder.stages.render import render
from tests.support.catalogue import image, write
from tests.support.debs import locked

AMD64 = Platform("linux", "amd64")
NAME = "debian-runtime.Dockerfile.j2"


def rendered(root: Path, text: str, **others: str) -> BuildContext:
    """An image whose template is `text`, rendered; `others` are more templates, `/` written `__`."""
    write(root, image("one"))
    folder = root / "templates"
    (folder / "_partials").mkdir(exist_ok=True)
    (folder / "_partials" / "assemble.sh.j2").write_text("true\n")
    (folder / NAME).write_text(text)
    for name, more in others.items():
        (folder / f"{name.replace('__', '/')}.j2").write_text(more)
    target = load_catalogue(root).find("one:1")
    packages = (locked("hello", b"1", "hello"),)
    section = LockSection("1", "runtime", AMD64, "trixie", Digest.of(b"intent"), None, packages)
    return render(target, AMD64, section, folder, {}, 0)


def mistake(root: Path, text: str, **others: str) -> Problem:
    with pytest.raises(DefinitionError) as caught:
        rendered(root, text, **others)
    (problem,) = caught.value.problems
    return problem


A_THOUSAND = "{% for a in 'xxxxxxxxxx' %}{% for b in 'xxxxxxxxxx' %}{% for c in 'xxxxxxxxxx' %}"
ENDS = "{% endfor %}{% endfor %}{% endfor %}"
NESTED = "{% for a in many %}{% for b in many %}{% for c in many %}"


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(10**9) %}x{% endfor %}",
        "{% set many = [0] * 60000 %}" + NESTED + "x" + ENDS,
        "{% set many = [0] * 60000 %}" + NESTED + ENDS,
        "{% set many = [0] * 60000 %}{% for a in many %}{% for b in many if false %}{% endfor %}{% endfor %}",
        "{% set many = [0] * 60000 %}{% set x %}" + NESTED + "x" + ENDS + "{% endset %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
        "{% macro m(x) %}" + "x" * 1000 + "{% endmacro %}" + A_THOUSAND * 2 + "{{ m(1) }}" + ENDS * 2,
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% include '" + NAME + "' %}",
        "{% extends '" + NAME + "' %}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 1000000000 * [0] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set x = 10 %}" + "{% set x = x * x %}" * 20,
        "{% set x = 'x' %}" + "{% set x = x ~ x %}" * 40,
        "{% set x = 'x' %}" + "{% set x = x + x %}" * 40,
        "{% set x = ['x' * 60000] * 60000 %}{{ x | join }}",
        "{% set x = 'x' * 60000 %}{{ x | replace('x', x) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x' | center(999999999) }}",
        "{% set x = 'x' * 60000 %}{% set y = [" + "x[1:], " * 600 + "] %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for a in 'x' %}" * 100 + "{% endfor %}" * 100,
        "x" * (1 << 20),
    ],
)
def test_what_does_not_end_or_grows_is_refused_soon_and_names_its_line(tmp_path: Path, text: str) -> None:
    before, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, os.times()
    problem = mistake(tmp_path, "FROM scratch\n" + text)
    assert problem.file == f"templates/{NAME}"
    assert problem.path in ("line 1", "line 2", "template")
    assert problem.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB
    assert os.times().user - spent.user < 60


def test_templates_that_multiply_by_including_each_other_are_refused(tmp_path: Path) -> None:
    chain = {f"p{n}": f"{{% include 'p{n + 1}.j2' %}}" * 2 for n in range(40)}
    problem = mistake(tmp_path, "{% include 'p0.j2' %}", **chain, p40="x")
    assert "without a bound" in problem.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ now() }}", "undefined"),
        ("{{ 'x' | random }}", "random"),
        ("{{ lipsum() }}", "undefined"),
        ("{{ lock }}", "is no text"),
        ("{{ lock.text }}", "is no text"),
        ("{{ lock.text() }}", "cannot be called"),
        ("{{ lock ~ 'x' }}", "is no text"),
        ("{{ '%s' % lock }}", "is no text"),
        ("{{ assembly.DROPPED_PATHS.__class__ }}", "undefined|unsafe"),
        ("{{ self._TemplateReference__context }}", "unsafe"),
        ("{{ assembly.re.compile('x') }}", "no attribute"),
        ("{% include '/etc/passwd' %}", "no template '/etc/passwd'"),
        ("{% include '../images/one/image.yaml' %}", "no template"),
        ("{% include 'builder.yaml' %}", "no template"),
        ("{% import image.name as m %}{{ m }}", "no template"),
        ("{% extends image.name ~ '.j2' %}", "in quotes"),
    ],
)
def test_nothing_but_the_given_facts_can_be_reached(tmp_path: Path, text: str, said: str) -> None:
    import re

    problem = mistake(tmp_path, "FROM scratch\n" + text)
    assert (problem.file, problem.path) == (f"templates/{NAME}", "line 2")
    assert re.search(said, problem.message), problem.message


def test_a_link_out_of_the_templates_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "templates" / "link.j2").symlink_to(tmp_path / "secret")
    problem = mistake(tmp_path, "\n\n{% include 'link.j2' %}")
    assert (problem.file, problem.path) == (f"templates/{NAME}", "line 3")
    assert "leads out of templates/" in problem.message


def test_a_pipe_is_no_template(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    os.mkfifo(tmp_path / "templates" / "pipe.j2")
    assert "not a regular file" in mistake(tmp_path, "{% include 'pipe.j2' %}").message


def test_a_mistake_in_an_included_template_names_that_one(tmp_path: Path) -> None:
    problem = mistake(tmp_path, "{% include 'p.j2' %}", p="\n{{ nothing }}")
    assert (problem.file, problem.path) == ("templates/p.j2", "line 2")


def test_what_templates_need_still_works(tmp_path: Path) -> None:
    text = """{% macro greet(name) %}<{{ name | upper }}>{% endmacro %}
{% for key, value in config.labels.items() if key.endswith(".variant") %}
{{ loop.index }} {{ key }}={{ value | docker_quote }} {{ greet(value)[1:4] ~ "." }}
{% endfor %}
{{ "%04o" | format(420) }} {{ [3, 1] | sort | join("-") }} {{ 2 * 3 + 4 }} {{ none_such | default("no") }}
"""
    said = rendered(tmp_path, text).files["Dockerfile"].decode()
    assert said == '1 dev.goldsmith.variant="runtime" RUN.\n0644 1-3 10 no\n'
