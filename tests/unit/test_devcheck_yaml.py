"""Which images Compose files and Kubernetes manifests name; templates and bombs are refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.devcheck import compose, kubernetes
from registry.devcheck.mention import Mention, Unreadable
from registry.devcheck.yamlfile import YamlFile, is_compose, is_kubernetes

COMPOSE = """# é
x-base: &base
  image: &i "a:1"
services:
  own: {<<: *base, image: 'b:1'}
  merged:
    <<: [*base, {image: never}]
  aliased: {image: *i}
  default:
    image: ${IMG:-c:1}
  built:
    image: the/result
    build:
      additional_contexts: {one: "docker-image://d:1", two: ./here}
      dockerfile_inline: |
        # x

        FROM e:1 AS é
        COPY --from=f:1 / /
  pulled: {image: g:1, build: ., pull_policy: missing}
  folded:
    build:
      args: [V=7]
      dockerfile_inline: "ARG V=1\\nFROM h:$${V}\\n"
---
services: {later: {image: i:1}}
"""


def of_compose(text: str) -> tuple[Mention, ...]:
    return compose.mentions(YamlFile(text.encode()))


def of_kubernetes(text: str) -> tuple[Mention, ...]:
    return kubernetes.mentions(YamlFile(text.encode()))


def test_compose() -> None:
    found = of_compose(COMPOSE)
    assert [m.text for m in found] == ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:7", "i:1"]
    data = COMPOSE.encode()
    assert {m.text for m in found if not m.edit} == {"c:1", "h:7"}
    for mention in found:
        if mention.edit:
            assert data[mention.edit.start : mention.edit.end].decode() == mention.text


@pytest.mark.parametrize(
    ("image", "problem"),
    [("${NO}", "NO has no value"), ('"{{ .Values.x }}"', "template"), ("$NO", "NO has no value")],
)
def test_compose_images_that_cannot_be_known(image: str, problem: str) -> None:
    (found,) = of_compose(f"services:\n  a:\n    image: {image}\n")
    assert problem in found.problem


@pytest.mark.parametrize(
    "spec",
    [
        "apiVersion: v1\nkind: Pod\nspec: SPEC",
        "apiVersion: v1\nkind: PodTemplate\ntemplate: {spec: SPEC}",
        "apiVersion: v1\nkind: ReplicationController\nspec: {template: {spec: SPEC}}",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: SPEC}}",
        "apiVersion: apps/v1\nkind: StatefulSet\nspec: {template: {spec: SPEC}}",
        "apiVersion: apps/v1\nkind: DaemonSet\nspec: {template: {spec: SPEC}}",
        "apiVersion: apps/v1\nkind: ReplicaSet\nspec: {template: {spec: SPEC}}",
        "apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: SPEC}}",
        "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: SPEC}}}}",
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, spec: SPEC}]",
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec: {template: {spec: SPEC}}",
        "a: 1\n---\napiVersion: v1\nkind: Pod\nspec: SPEC\n---\n",
    ],
)
def test_every_kind_that_holds_a_pod(spec: str) -> None:
    pod = (
        "{containers: [{image: a:1}, {image: 'b:1'}], initContainers: [{image: c:1}], "
        "ephemeralContainers: [{image: d:1}], volumes: [{image: {reference: e:1}}]}"
    )
    text = spec.replace("SPEC", pod)
    assert is_kubernetes(YamlFile(text.encode()))
    assert [m.text for m in of_kubernetes(text)] == ["a:1", "b:1", "c:1", "d:1", "e:1"]
    json = text.replace("'", '"')
    assert [m.text for m in of_kubernetes(json)] == ["a:1", "b:1", "c:1", "d:1", "e:1"]


@pytest.mark.parametrize(
    "policy", ["always", "missing", "if_not_present", "daily", "weekly", "every_12h", "newer"]
)
def test_a_service_that_is_built_may_be_pulled_all_the_same(policy: str) -> None:
    text = "services: {a: {image: a:1, build: ., pull_policy: POLICY}}"
    assert [m.text for m in of_compose(text.replace("POLICY", policy))] == ["a:1"]
    assert of_compose(text.replace("POLICY", "build")) == of_compose(text.replace("POLICY", "never")) == ()


def test_an_image_may_be_mounted_into_a_service() -> None:
    volumes = "[./x:/y, {type: image, source: b:1, target: /z}, {type: volume, source: c}, {type: image}]"
    found = of_compose(f"services: {{a: {{image: a:1, volumes: {volumes}}}}}")
    assert [(m.text, m.place) for m in found] == [
        ("a:1", "image of the service a"),
        ("b:1", "image of a volume of the service a"),
    ]
    assert all(m.edit for m in found)


def test_containers_that_stand_alone_and_templates_of_steps() -> None:
    workflow = "templates: [{container: {image: a:1}}, {script: {image: b:1}}, {container: main}]"
    text = f"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {{{workflow}}}"
    assert [m.text for m in of_kubernetes(text)] == ["a:1", "b:1"]
    task = "apiVersion: tekton.dev/v1\nkind: Task\nspec: {stepTemplate: {image: a:1}, steps: [{image: b:1}]}"
    assert [m.text for m in of_kubernetes(task)] == ["a:1", "b:1"]


def test_a_kustomization_puts_images_in_the_place_of_others() -> None:
    images = """
    - {name: app, newName: a, newTag: "1"}
    - {name: b, newTag: v2}
    - {name: c, digest: "sha256:aa"}
    - {name: d, newName: e}
    - {newTag: "2"}
    - text
"""
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    found = of_kubernetes(f"{head}images:{images}")
    assert [m.text for m in found] == ["a:1", "b:v2", "c@sha256:aa", "e"]
    assert not any(m.edit for m in found) and all("by hand" in m.fixed_by for m in found)


def test_a_definition_of_resources_holds_none() -> None:
    text = "apiVersion: x\nkind: CustomResourceDefinition\nspec: {containers: [{image: a:1}]}"
    assert of_kubernetes(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Pod\n{{- if .Values.on }}\nspec: {}\n{{- end }}\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {{ .Values.image }}\n",
        "{% if x %}\nkind: Pod\n{% endif %}",
    ],
)
def test_templates_are_not_readable(text: str) -> None:
    with pytest.raises(Unreadable, match="template"):
        of_kubernetes(text)


BOMB = "a0: &a0 {image: x}\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGE_BOMB = "services:\n" + "".join(
    f"  s{n}: &s{n} {{{'<<: [' + ', '.join(f'*s{i}' for i in range(max(0, n - 60), n)) + ']' if n else 'a: 1'}}}\n"
    for n in range(900)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: [" * 5000, "nested deeper than 100"),
        (b"- " * 5000 + b"a", "nested deeper than 100"),
        (b"[" + b"1," * 400_000 + b"]", "more than 300000 values"),
        (b"a: *b\n", "has no anchor|undefined alias"),
        (b"a: \xff", "UTF-8"),
        (b"a: 'x", "not proper YAML"),
        (b"\0", "not proper YAML"),
        ("\ud800".encode("utf-8", "surrogatepass"), "UTF-8"),
    ],
)
def test_bombs_and_broken_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        YamlFile(data)


def test_alias_bombs_cost_nothing() -> None:
    file = YamlFile(("apiVersion: v1\nkind: List\n" + BOMB).encode())
    assert kubernetes.mentions(file) == ()
    with pytest.raises(Unreadable, match="have to be looked through"):
        compose.mentions(YamlFile(MERGE_BOMB.encode()))
    loop = YamlFile(b"apiVersion: v1\nkind: List\nitems: &i [*i, {containers: [{image: a:1}]}]\n")
    assert [m.text for m in kubernetes.mentions(loop)] == ["a:1"]


def test_compose_is_known_by_its_services() -> None:
    assert is_compose(YamlFile(b"services: {a: {image: x}}"))
    assert not is_compose(YamlFile(b"services: [a]"))
    assert not is_compose(YamlFile(b"services: {a: {port: 1}}"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="services: image{}[]&*a<\n -\"'|>$éx1{%", max_size=150))
def test_any_text_is_read_or_refused(text: str) -> None:
    data = ("services:\n  a:\n    image: b:1\n" + text).encode()
    try:
        file = YamlFile(data)
        found = (*compose.mentions(file), *kubernetes.mentions(file))
    except Unreadable as error:
        assert str(error)
        return
    for mention in found:
        if mention.edit:
            assert data[mention.edit.start : mention.edit.end].decode() == mention.text
