"""A template that replaces a filled block of another one is refused once that block is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import DefinitionError, Problem
from builder.model.digest import Digest
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.stages.define import load_catalogue
from builder.stages.render import accept_replaced_blocks, render, template_problems, used_templates
from builder.tools import strict_yaml
from tests.support.catalogue import image, write
from tests.support.debs import locked

AMD64 = Platform("linux", "amd64")
PARENT = """FROM scratch
{% block extra %}{# for others #}
{% endblock %}
{% block body %}
COPY a /
USER {{ config.user }}
{% endblock %}
"""
CHILD = """{% extends "debian-runtime.Dockerfile.j2" %}
{% block extra %}
# ours
{% endblock %}
"""
REPLACING = CHILD + "{% block body %}\nCOPY b /\n{% endblock %}\n"
STORED = "templates/acme.Dockerfile.replaces.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, image("one", template="acme"))
    (tmp_path / "templates" / "_partials").mkdir(exist_ok=True)
    (tmp_path / "templates" / "_partials" / "assemble.sh.j2").write_text(
        "true\n{% block tail %}{% endblock %}"
    )
    put(tmp_path, PARENT, CHILD)
    return tmp_path


def put(root: Path, parent: str, child: str | None = None) -> None:
    (root / "templates" / "debian-runtime.Dockerfile.j2").write_text(parent)
    if child is not None:
        (root / "templates" / "acme.Dockerfile.j2").write_text(child)


def dockerfile(root: Path, file: str = "Dockerfile") -> str:
    target = load_catalogue(root).find("one:1")
    packages = (locked("hello", b"1", "hello"),)
    section = LockSection("1", "runtime", AMD64, "trixie", Digest.of(b"intent"), None, packages)
    return render(target, AMD64, section, root / "templates", {}, 0).files[file].decode()


def refusal(root: Path) -> Problem:
    """What both a build and lint refuse."""
    with pytest.raises(DefinitionError) as caught:
        dockerfile(root)
    (problem,) = caught.value.problems
    assert template_problems(root / "templates") == [problem]
    return problem


def test_an_empty_block_is_filled_without_further_ado(root: Path) -> None:
    assert "# ours\nCOPY a /" in dockerfile(root)
    assert template_problems(root / "templates") == []
    assert accept_replaced_blocks(root / "templates") == []


def test_replacing_a_filled_block_wants_to_be_accepted(root: Path) -> None:
    put(root, PARENT, REPLACING)
    problem = refusal(root)
    assert (problem.file, problem.path) == ("templates/acme.Dockerfile.j2", "line 5")
    assert "block body of debian-runtime.Dockerfile.j2" in problem.message
    assert "goldsmith lint --accept-blocks" in problem.hint
    assert accept_replaced_blocks(root / "templates") == [STORED]
    assert "COPY b /" in dockerfile(root)
    assert accept_replaced_blocks(root / "templates") == [], "nothing is new"


def test_a_changed_block_is_refused_with_both_hashes_and_the_difference(root: Path) -> None:
    put(root, PARENT, REPLACING)
    accept_replaced_blocks(root / "templates")
    before = strict_yaml.parse((root / STORED).read_bytes())["blocks"]["body"]["sha256"]
    put(root, PARENT.replace("COPY a /", "COPY a /\nRUN important"))
    problem = refusal(root)
    assert before in problem.message
    accept_replaced_blocks(root / "templates")
    after = strict_yaml.parse((root / STORED).read_bytes())["blocks"]["body"]["sha256"]
    assert after != before
    assert after in problem.message
    assert "\n+RUN important" in problem.message
    assert "\n COPY a /" in problem.message
    assert "goldsmith lint --accept-blocks" in problem.hint
    assert "RUN important" not in dockerfile(root)


def test_what_changes_beside_the_block_is_no_change_of_it(root: Path) -> None:
    put(root, PARENT, REPLACING)
    accept_replaced_blocks(root / "templates")
    put(root, PARENT.replace("FROM scratch", "# new\nFROM scratch"))
    assert "# new\n" in dockerfile(root)


def test_a_block_that_was_empty_and_is_filled_now_is_refused(root: Path) -> None:
    put(root, PARENT.replace("{# for others #}", "RUN audit"))
    assert "block extra" in refusal(root).message


@pytest.mark.parametrize("gone", ["{# nothing left #}", None])
def test_a_block_that_is_no_longer_replaced_is_told(root: Path, gone: str | None) -> None:
    put(root, PARENT, REPLACING)
    accept_replaced_blocks(root / "templates")
    if gone:
        put(root, PARENT.replace("COPY a /\nUSER {{ config.user }}", gone))
    else:
        put(root, PARENT, CHILD)
    assert (refusal(root).file, refusal(root).path) == (STORED, "blocks.body")
    assert accept_replaced_blocks(root / "templates") == [STORED]
    assert not (root / STORED).exists()
    dockerfile(root)


def test_an_altered_record_is_refused(root: Path) -> None:
    put(root, PARENT, REPLACING)
    accept_replaced_blocks(root / "templates")
    (root / STORED).write_text((root / STORED).read_text().replace("COPY a", "COPY c"))
    assert "not what its sha256 says" in refusal(root).message


def test_a_malformed_record_is_named_with_its_place(root: Path) -> None:
    put(root, PARENT, CHILD)
    (root / STORED).write_text("schema: 1\nblocks: {body: {sha256: x}}\n")
    with pytest.raises(DefinitionError) as caught:
        dockerfile(root)
    assert {p.file for p in caught.value.problems} == {STORED}


def test_what_super_leads_to_belongs_to_the_block(root: Path) -> None:
    put(root, PARENT, CHILD + "{% block body %}{{ super() }}RUN x\n{% endblock %}\n")
    (root / "templates" / "more.Dockerfile.j2").write_text(
        '{% extends "acme.Dockerfile.j2" %}{% block body %}\n# all ours\n{% endblock %}'
    )
    accept_replaced_blocks(root / "templates")
    assert template_problems(root / "templates") == []
    put(root, PARENT.replace("COPY a", "COPY z"))
    files = {p.file for p in template_problems(root / "templates")}
    assert files == {"templates/acme.Dockerfile.j2", "templates/more.Dockerfile.j2"}


@pytest.mark.parametrize(
    ("child", "path", "said"),
    [
        ("{% block bodi %}x{% endblock %}", "line 2", "no template above has a block 'bodi'"),
        ("RUN something\n", "line 2", "outside of blocks"),
        ("{{ config.user }}", "line 2", "outside of blocks"),
        ("{% extends x %}", "line 2", "in quotes"),
        ('{% extends "other.Dockerfile.j2" %}', "line 2", "extends one other"),
    ],
)
def test_what_would_be_lost_in_silence_is_a_mistake(root: Path, child: str, path: str, said: str) -> None:
    put(root, PARENT, '{% extends "debian-runtime.Dockerfile.j2" %}\n' + child)
    problem = refusal(root)
    assert (problem.file, problem.path) == ("templates/acme.Dockerfile.j2", path)
    assert said in problem.message


def test_a_template_that_extends_another_only_sometimes_is_a_mistake(root: Path) -> None:
    """What it replaces would be known only when it is rendered."""
    extends, rest = REPLACING.split("\n", 1)
    put(root, PARENT, f"{{% if config.user %}}{extends}{{% endif %}}\n{rest}")
    assert "outside of blocks and conditions" in refusal(root).message


def test_a_chain_of_templates_that_is_not_looked_at_to_its_end_is_a_mistake(root: Path) -> None:
    put(root, PARENT, '{% extends "t1.Dockerfile.j2" %}{% block body %}{% endblock %}')
    for number in range(1, 9):
        above = f"t{number + 1}" if number < 8 else "debian-runtime"
        (root / f"templates/t{number}.Dockerfile.j2").write_text(f'{{% extends "{above}.Dockerfile.j2" %}}')
    assert "more than 8 templates" in refusal(root).message


def test_templates_that_extend_each_other_are_a_mistake(root: Path) -> None:
    put(root, '{% extends "acme.Dockerfile.j2" %}')
    with pytest.raises(DefinitionError, match="mistake"):
        dockerfile(root)


def test_variables_and_macros_may_stand_outside_of_blocks(root: Path) -> None:
    extra = "{% set x %}# set{% endset %}{% macro m() %}# macro{% endmacro %}"
    put(root, PARENT, CHILD.replace("# ours", "{{ x }} {{ m() }}") + extra)
    assert "# set # macro\nCOPY a /" in dockerfile(root)


def test_the_script_of_all_is_extended_by_one_of_the_template(root: Path) -> None:
    own = root / "templates" / "acme.assemble.sh.j2"
    own.write_text('{% extends "_partials/assemble.sh.j2" %}{% block tail %}echo done\n{% endblock %}')
    assert dockerfile(root, "assemble/assemble.sh") == "true\necho done\n"
    assert own.name in used_templates(root / "templates", ["acme"])


def test_what_was_accepted_travels_with_the_templates(root: Path) -> None:
    put(root, PARENT, REPLACING)
    accept_replaced_blocks(root / "templates")
    assert STORED.removeprefix("templates/") in used_templates(root / "templates", ["acme"])
