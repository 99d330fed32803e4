"""Rebuilding from the registry alone: the same digest, or the first difference; kits that lie are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.engines.assembler_kit import packages_blob
from builder.engines.direct import DirectEngine
from builder.errors import ChangedMeanwhile, DefinitionError, GoldsmithError, ToolError, UsageError
from builder.model.digest import Digest, canonical_json
from builder.model.image import BuildContext, Descriptor, RawImage
from builder.model.kit import ASSEMBLER_TYPE, CONFIG_TYPE, DOCUMENT_TYPE, PACKAGES_TYPE, PackedKit
from builder.model.kit import TITLE_ANNOTATION as TITLE
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.step import Step
from builder.oci.layout import write_blob
from builder.oci.manifest import index_bytes, parse_manifest
from builder.oci.tarformat import END, TarEntry, header, padding
from builder.pipeline import kits
from builder.pipeline.kits import make_kit
from builder.pipeline.reproduce import Rebuilt, no_mirror, reproduce
from builder.report import Silent
from builder.signing.inputs import read_inputs
from builder.signing.keys import BUILDER
from builder.stages.finish import without
from builder.stages.open_kit import fetch_assembler, open_kit
from builder.store import Store
from builder.tools.pool import Pool
from builder.version import version
from tests.support.images import AMD64, NOW
from tests.support.kits import TOOLS, KitWorld, publish_kit
from tests.support.memory_client import MemoryClient

Document = dict[str, Any]
ARM64 = Platform.parse("linux/arm64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    world = KitWorld(tmp_path_factory.mktemp("kits"))
    assert world.kit.digest
    return world


@pytest.fixture
def world(made: KitWorld) -> Iterator[KitWorld]:
    made.client = MemoryClient()
    yield made


class Recording(DirectEngine):
    """Python's engine, that keeps what it was asked for."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def build(self, context: BuildContext, pool: Any, work: Path) -> RawImage:
        self.built.append(f"{context.ref} {context.platform}")
        return super().build(context, pool, work)


class Bench:
    """One engine, and nobody to ask."""

    def __init__(self) -> None:
        self.engine = Recording()

    def release(self) -> str:
        return version()

    def pool(self, store: Store) -> Pool:
        return Pool(store, no_mirror)

    def steps(self) -> dict[str, Step]:
        return {}

    def engines(self, catalogue: object, store: Store, kit: object) -> list[DirectEngine]:
        return [self.engine]


def rebuild(world: KitWorld, where: Reference, folder: Path, bench: Bench | None = None) -> Rebuilt:
    """What `goldsmith reproduce` does on a machine that has keys and a registry."""
    inputs = read_inputs(world.client, where, world.trust.unrevoked(BUILDER))
    state, work = Store(folder / "state"), folder / "work"
    return reproduce(world.client, where, inputs, bench or Bench(), state, work, Silent())


def test_the_published_digest_comes_out_of_the_kit(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish()
    done = rebuild(world, where, tmp_path)
    assert done.same and done.index == world.image.digest
    assert done.published == done.rebuilt and done.explanation == ()
    files = [x.size for x in parse_manifest(world.kit.manifest).layers if x.media_type == PACKAGES_TYPE]
    assert len(files) == 2 and done.fetched_bytes == sum(files)


def test_an_image_of_one_platform_on_one_of_two_comes_out_too(tmp_path: Path) -> None:
    """The lock below names packages of a platform that the image does not have, and its provenance no such."""
    world = KitWorld(tmp_path / "made", below=("linux/amd64", "linux/arm64"))
    bench = Bench()
    done = rebuild(world, world.publish(), tmp_path, bench)
    assert done.same and [str(p) for p in done.rebuilt] == ["linux/amd64"] and done.left_out == ()
    assert bench.engine.built == ["base:1 linux/amd64", "app:1 linux/amd64"]


@pytest.fixture(scope="module")
def made_twofold(tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    both = ("linux/amd64", "linux/arm64")
    return KitWorld(tmp_path_factory.mktemp("two-platforms"), below=both, own=both)


@pytest.fixture
def twofold(made_twofold: KitWorld) -> KitWorld:
    made_twofold.client = MemoryClient()
    return made_twofold


def test_an_image_without_the_platform_that_could_not_be_checked_comes_out_too(
    twofold: KitWorld, tmp_path: Path
) -> None:
    """That platform is not built either, neither of the image nor of those below it; it is named."""
    image, bench = without(twofold.image, [ARM64]), Bench()
    where = publish_kit(twofold.catalogue, image, twofold.pool, twofold.client, twofold.keys, NOW)
    done = rebuild(twofold, where, tmp_path, bench)
    assert done.same and done.index == image.digest != twofold.image.digest
    assert [str(p) for p in done.rebuilt] == ["linux/amd64"] and done.left_out == (ARM64,)
    assert bench.engine.built == ["base:1 linux/amd64", "app:1 linux/amd64"]


@pytest.mark.parametrize("listing", ["fewer", "twice", "a-stranger's"])
def test_an_index_of_other_platforms_than_its_builder_named_is_refused_before_anything_is_built(
    twofold: KitWorld, tmp_path: Path, listing: str
) -> None:
    whole, bench = twofold.image, Bench()
    amd64, arm64 = (p.manifest for p in whole.platforms)
    listed = {
        "fewer": [amd64],
        "twice": [amd64, replace(arm64, platform=amd64.platform), arm64],
        "a-stranger's": [amd64, arm64, replace(amd64, platform=None)],
    }[listing]
    data = index_bytes(listed)
    index = replace(whole.index, digest=write_blob(whole.layout, data), size=len(data))
    kit = replace(twofold.kit, manifest=_subject(twofold.kit.manifest, index), subject=index)
    where = twofold.publish(kit, image=replace(whole, index=index))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(twofold, where, tmp_path, bench)
    assert raised.value.reference == "other-platforms" and bench.engine.built == []


def test_one_platform_of_an_image_has_no_kit_and_says_what_has(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish().with_digest(world.image.platforms[0].manifest.digest)
    with pytest.raises(UsageError) as raised:
        rebuild(world, where, tmp_path)
    assert "index" in raised.value.hint


def test_another_file_in_the_published_image_is_named_with_its_cause(world: KitWorld, tmp_path: Path) -> None:
    """The builder published something else than its kit gives: one file has other content."""
    from tests.support.tamper import with_file

    theirs = with_file(world.image, "usr/lib/hello", b"PROGRAM\n", tmp_path / "theirs")
    kit = replace(world.kit, manifest=_subject(world.kit.manifest, theirs.index), subject=theirs.index)
    where = world.publish(kit, image=theirs)
    done = rebuild(world, where, tmp_path)
    assert not done.same
    assert [x.level for x in done.explanation] == ["index", "manifest", "layer", "entry"]
    assert (done.explanation[-1].where, done.explanation[-1].causes) == ("/usr/lib/hello", ("content",))


def _without_history(config: Document) -> None:
    del config["history"]


def _one_layer_fewer(config: Document) -> None:
    config["rootfs"]["diff_ids"].pop()


def _padded(config: Document) -> None:
    config["pad"] = "x" * (5 << 20)


def _no_lists(config: Document) -> None:
    config["rootfs"], config["history"] = [], None


@pytest.mark.parametrize("change", [_without_history, _one_layer_fewer, _padded, _no_lists])
def test_a_published_image_that_nobody_can_read_is_explained_all_the_same(
    world: KitWorld, tmp_path: Path, change: Callable[[Document], None]
) -> None:
    from tests.support.tamper import with_configuration

    theirs = with_configuration(world.image, change, tmp_path / "theirs")
    kit = replace(world.kit, manifest=_subject(world.kit.manifest, theirs.index), subject=theirs.index)
    done = rebuild(world, world.publish(kit, image=theirs), tmp_path)
    assert not done.same and [x.level for x in done.explanation] == ["index", "manifest"]


# ------------------------------------------------------------------ kits that lie


def respoken(kit: PackedKit, change: Callable[[Document, dict[Digest, bytes]], None]) -> PackedKit:
    """The kit with its manifest and its small blobs changed, and named by their new digests."""
    manifest = json.loads(kit.manifest)
    small = {d: b for d, b in kit.blobs.items() if isinstance(b, bytes)}
    files = {d: b for d, b in kit.blobs.items() if not isinstance(b, bytes)}
    change(manifest, small)
    data = canonical_json(manifest)
    return PackedKit(data, kit.subject, {**files, **{Digest.of(b): b for b in small.values()}})


def documents(change: Callable[[list[Document]], None]) -> Callable[[Document, dict[Digest, bytes]], None]:
    """Change what the documents say, and name them by their new digests everywhere."""

    def apply(manifest: Document, small: dict[Digest, bytes]) -> None:
        layers = [x for x in manifest["layers"] if x["mediaType"] == DOCUMENT_TYPE]
        said = [json.loads(small[Digest(x["digest"])]) for x in layers]
        change(said)
        below: Document | None = None
        for layer, document in reversed(list(zip(layers, said, strict=True))):
            if document["parent"] is not None and below is not None:
                document["parent"]["document"] = below["digest"]
            _place(layer, small, canonical_json(document))
            below = layer
        _config(manifest, small, documents=[x["digest"] for x in layers])

    return apply


def _config(manifest: Document, small: dict[Digest, bytes], **fields: Any) -> None:
    config = json.loads(small[Digest(manifest["config"]["digest"])])
    _place(manifest["config"], small, canonical_json({**config, **fields}))


def _place(layer: Document, small: dict[Digest, bytes], data: bytes) -> None:
    small.pop(Digest(layer["digest"]), None)
    layer["digest"], layer["size"] = str(Digest.of(data)), len(data)
    small[Digest.of(data)] = data


def _subject(manifest: bytes, subject: Descriptor) -> bytes:
    bare = {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size}
    return canonical_json({**json.loads(manifest), "subject": bare})


Change = Callable[[Document, dict[Digest, bytes]], None]


def drop_packages(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"] = [x for x in manifest["layers"] if "app:1.tar" not in x["annotations"].values()]


def instead(data: bytes) -> Change:
    """In the place of the image's own file of packages."""

    def apply(manifest: Document, small: dict[Digest, bytes]) -> None:
        (layer,) = (x for x in manifest["layers"] if "app:1.tar" in x["annotations"].values())
        _place(layer, small, data)

    return apply


def packed(*members: tuple[str, bytes], kind: str = "0") -> bytes:
    blocks = [(TarEntry(n, kind, 0o644, 0, 0, len(d), 0, ""), d) for n, d in members]
    return b"".join(header(e) + d + padding(len(d)) for e, d in blocks) + END


def add_file(manifest: Document, small: dict[Digest, bytes]) -> None:
    layer = {"mediaType": PACKAGES_TYPE, "digest": str(Digest.of(b"")), "size": 0}
    manifest["layers"].append(layer)
    _place(layer, small, packed())


def add_stranger(manifest: Document, small: dict[Digest, bytes]) -> None:
    add_file(manifest, small)
    manifest["layers"][-1]["mediaType"] = "text/plain"


def huge(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"][-1]["size"] = 9 << 30


def huge_document(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"][0]["size"] = 33 << 20


def huge_documents(manifest: Document, small: dict[Digest, bytes]) -> None:
    sizes = (manifest["layers"][0]["size"], *[31 << 20] * 5)
    manifest["layers"][:1] = [{**manifest["layers"][0], "size": size} for size in sizes]


def other_subject(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["subject"]["digest"] = str(Digest.of(b"another image"))


def other_versions(manifest: Document, small: dict[Digest, bytes]) -> None:
    _config(manifest, small, versions=["assembly 99"])


def file(path: str, content: str | None) -> Callable[[list[Document]], None]:
    def change(said: list[Document]) -> None:
        said[0]["files"][path] = content if content is not None else said[0]["files"][path] + "\n"

    return change


def other_lock(said: list[Document]) -> None:
    lock = said[0]["files"]["images/app/image.lock"]
    said[0]["files"]["images/app/image.lock"] = lock.replace(" hello 1.0-1\n", " hello 1.0-2\n")


def other_parent_lock(said: list[Document]) -> None:
    lock = said[1]["files"]["images/base/image.lock"]
    said[1]["files"]["images/base/image.lock"] = lock.replace("libhello 1.0-1\n", "libhello 1.0-2\n")


def no_lock(said: list[Document]) -> None:
    del said[0]["files"]["images/app/image.lock"]


def garbled_lock(said: list[Document]) -> None:
    said[0]["files"]["images/app/image.lock"] = "[[[\n"


def no_definition_below(said: list[Document]) -> None:
    said[1]["files"]["images/base/image.yaml"] = "schema: [\n"


def rendered(said: list[Document]) -> None:
    said[0]["rendered"]["linux/amd64"]["Dockerfile"] = "FROM elsewhere\n"


def orphan(said: list[Document]) -> None:
    said[0]["parent"] = None


def renamed(said: list[Document]) -> None:
    said[0]["ref"] = "other:1"


LIES: dict[str, tuple[Change, str]] = {
    "missing-file": (drop_packages, "kit-incomplete"),
    "missing-package": (instead(packed()), "kit-incomplete"),
    "extra-file": (add_file, "kit-malformed"),
    "extra-package": (instead(packed((f"{'0' * 64}.deb", b"a trojan"))), "kit-malformed"),
    "package-elsewhere": (instead(packed(("../../../passwd", b"x"))), "kit-malformed"),
    "package-link": (instead(packed(("passwd", b""), kind="1")), "kit-malformed"),
    "cut-off": (instead(packed((f"{'0' * 64}.deb", b"x" * 600))[:700]), "kit-malformed"),
    "larger-than-its-packages": (instead(bytes(1 << 20)), "kit-malformed"),
    "extra-content": (add_stranger, "kit-refused"),
    "huge": (huge, "kit-refused"),
    "huge-document": (huge_document, "kit-refused"),
    "huge-documents": (huge_documents, "kit-refused"),
    "another-image": (other_subject, "kit-refused"),
    "another-version": (other_versions, "other-versions"),
    "other-definition": (documents(file("images/app/image.yaml", None)), "kit-other-definition"),
    "other-template": (
        documents(file("templates/debian-runtime.Dockerfile.j2", None)),
        "kit-other-template",
    ),
    "other-lock": (documents(other_lock), "kit-other-lock"),
    "no-lock": (documents(no_lock), "kit-other-lock"),
    "garbled-lock": (documents(garbled_lock), "kit-other-lock"),
    "other-lock-below": (documents(other_parent_lock), "kit-unusable"),
    "no-definition-below": (documents(no_definition_below), "kit-unusable"),
    "other-context": (documents(rendered), "kit-other-context"),
    "parent-cut-off": (documents(orphan), "kit-malformed"),
    "another-name": (documents(renamed), "kit-other-image"),
    "traversal": (documents(file("images/app/../../../../tmp/x", "x")), "kit-refused"),
    "absolute": (documents(file("/etc/passwd", "x")), "kit-refused"),
    "hidden": (documents(file("images/app/.git/hooks/x", "x")), "kit-refused"),
    "elsewhere": (documents(file("registry/policies/x.yaml", "x")), "kit-malformed"),
    "other-image's-file": (documents(file("images/base/image.yaml", "x")), "kit-malformed"),
    "file-and-folder": (documents(file("images/app/image.yaml/x", "x")), "kit-malformed"),
    "not-text": (documents(file("images/app/x", {"base64": "?"})), "kit-refused"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", LIES)
def test_a_kit_that_lies_is_refused_even_when_its_builder_named_it(
    world: KitWorld, tmp_path: Path, name: str
) -> None:
    change, reference = LIES[name]
    where = world.publish(respoken(world.kit, change))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == reference and "goldsmith lock" not in raised.value.hint
    assert raised.value.exit_code == (5 if reference == "other-versions" else 4)
    assert not (tmp_path / "state" / "images").exists() or not any((tmp_path / "state" / "images").iterdir())
    assert not [p for p in tmp_path.rglob("*") if p.name in ("passwd", "x")]


def test_a_kit_with_another_digest_than_its_builder_named_is_refused(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish()
    repo = where.name
    lie = respoken(world.kit, documents(file("images/app/image.yaml", None)))
    for digest, data in lie.blobs.items():
        world.client.put_blob(repo, data, digest)
    _, kind = world.client.inner.manifests[repo, world.kit.digest]
    world.client.inner.manifests[repo, world.kit.digest] = (lie.manifest, kind)
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "digest-mismatch"


def test_a_package_with_other_bytes_than_locked_is_refused(world: KitWorld, tmp_path: Path) -> None:
    package = world.packages[1]
    for data in (b"x" * package.size, b"x"):
        where = world.publish(respoken(world.kit, instead(packed((f"{package.sha256}.deb", data)))))
        with pytest.raises(GoldsmithError) as raised:
            rebuild(world, where, tmp_path / str(len(data)))
        assert raised.value.reference == "kit-malformed"
        assert not list(tmp_path.rglob(f"{package.sha256}.deb"))


def test_a_package_that_is_there_twice_is_refused(world: KitWorld, tmp_path: Path) -> None:
    package = world.packages[1]
    member = f"{package.sha256}.deb", world.pool.path(package).read_bytes()
    where = world.publish(respoken(world.kit, instead(packed(member, member))))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "kit-malformed"


ASSEMBLERS: dict[str, tuple[Callable[[tuple[str, bytes]], bytes], str]] = {
    "another-package": (lambda own: packed((f"{'0' * 64}.deb", b"a trojan")), "kit-malformed"),
    "other-bytes": (lambda own: packed((own[0], b"x" * len(own[1]))), "kit-malformed"),
    "missing": (lambda own: packed(), "kit-incomplete"),
    "larger-than-its-packages": (lambda own: packed(own) + bytes(1 << 20), "kit-malformed"),
}


@pytest.mark.parametrize("name", ASSEMBLERS)
def test_an_assembler_that_is_not_what_its_lock_says_is_refused_as_any_lie(
    world: KitWorld, tmp_path: Path, name: str
) -> None:
    """Its packages are run: docker and buildah assemble in them."""
    lie, reference = ASSEMBLERS[name]
    package = world.packages[0]
    section = LockSection("builder", "runtime", AMD64, "trixie", Digest.of(b"intent"), None, (package,))
    blob = lie((f"{package.sha256}.deb", world.pool.path(package).read_bytes()))
    described = Descriptor(ASSEMBLER_TYPE, Digest.of(blob), len(blob), {TITLE: "assembler-amd64.tar"})
    kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, (described, blob))
    where = world.publish(kit)
    opened = open_kit(world.client, where, read_inputs(world.client, where, world.trust.unrevoked(BUILDER)))
    with pytest.raises(GoldsmithError) as raised:
        fetch_assembler(world.client, opened, section, tmp_path)
    assert (raised.value.reference, raised.value.exit_code) == (reference, 4)
    assert not list(tmp_path.iterdir())


def test_the_assembler_of_another_machine_is_no_lie(world: KitWorld, tmp_path: Path) -> None:
    """A kit brings the programs of the machine that built the image; elsewhere python's engine rebuilds it."""
    section = LockSection("builder", "runtime", AMD64, "trixie", Digest.of(b"i"), None, (world.packages[0],))
    there = replace(section, platform=ARM64, packages=(world.packages[1],))
    kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, packages_blob(there, world.pool))
    where = world.publish(kit)
    opened = open_kit(world.client, where, read_inputs(world.client, where, world.trust.unrevoked(BUILDER)))
    with pytest.raises(UsageError) as raised:
        fetch_assembler(world.client, opened, section, tmp_path)
    assert "arm64" in raised.value.context and "direct" in raised.value.hint


@pytest.mark.parametrize("change", [rendered, None])
def test_what_another_release_makes_otherwise_is_not_called_a_lie(
    world: KitWorld, tmp_path: Path, change: Callable[[list[Document]], None] | None
) -> None:
    """It is not taken, and not attested, but an honest image is not accused either."""

    def other(origin: Document) -> Document:
        internal = origin["buildDefinition"]["internalParameters"]
        internal["tools"]["goldsmith"] = "0.0.9"
        if change is None:
            internal["inputHash"] = str(Digest.of(b"other"))
        return origin

    where = world.publish(respoken(world.kit, documents(change)) if change else None, change=other)
    with pytest.raises(ToolError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "other-versions" and "goldsmith 0.0.9" in raised.value.hint


def test_an_image_without_a_kit_cannot_be_rebuilt_and_says_so(world: KitWorld) -> None:
    where = world.publish()
    del world.client.inner.manifests[where.name, world.kit.digest]
    with pytest.raises(GoldsmithError) as raised:
        read_inputs(world.client, where, world.trust.unrevoked(BUILDER))
    assert raised.value.reference == "no-kit"


def test_a_provenance_by_a_strangers_key_names_no_kit(world: KitWorld) -> None:
    where = world.publish()
    with pytest.raises(GoldsmithError) as raised:
        read_inputs(world.client, where, lambda signature, data: False)
    assert raised.value.reference == "signature-invalid"


def test_a_provenance_that_says_another_input_is_refused(world: KitWorld, tmp_path: Path) -> None:
    def other(origin: Document) -> Document:
        origin["buildDefinition"]["internalParameters"]["inputHash"] = str(Digest.of(b"other"))
        return origin

    where = world.publish(change=other)
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "kit-other-input"


def test_a_file_that_no_definition_can_name_is_not_in_the_kit(world: KitWorld, tmp_path: Path) -> None:
    folder = world.target.directory
    names = ("notes (old).txt", "räume.txt", ".hidden")
    for name in names:
        (folder / name).write_text("x")
    try:
        kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        for name in names:
            (folder / name).unlink()
    assert kit.digest == world.kit.digest


def test_what_nobody_could_open_is_not_published(world: KitWorld) -> None:
    large = [world.target.directory / f"large-{n}" for n in range(3)]
    for path in large:
        path.write_bytes(b"x" * (12 << 20))
    try:
        with pytest.raises(DefinitionError) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        for path in large:
            path.unlink()
    (problem,) = raised.value.problems
    assert problem.file == "images/app"
    assert "no rebuild kit" in problem.message and "take out" in problem.hint


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("images/app/image.yaml", lambda text: text + "# a comment\n"),
        ("images/app/checks.yaml", lambda text: text + "# a comment\n"),
        ("images/base/image.yaml", lambda text: text.replace("/nonexistent", "/") + "# edited\n"),
        ("templates/debian-runtime.Dockerfile.j2", lambda text: "{# a comment #}" + text),
        ("templates/_partials/assemble.sh.j2", lambda text: text + "# rendered\n"),
        ("images/app/image.lock", lambda text: text.replace(" 1.0-1 ", " 1.0-2 ")),
    ],
)
def test_an_edit_while_a_run_is_under_way_is_refused_before_anything_is_signed(
    world: KitWorld, file: str, edit: Callable[[str], str]
) -> None:
    """Kit, provenance and build speak of the same bytes, or there is none of them."""
    path = world.catalogue.root / file
    before = path.read_text()
    edited = edit(before)
    assert edited != before
    path.write_text(edited)
    try:
        with pytest.raises(ChangedMeanwhile) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        path.write_text(before)
    (problem,) = raised.value.problems
    assert problem.file in (file, "images/app")
    assert "run it again" in raised.value.hint
    assert make_kit(world.catalogue, world.image, world.pool, TOOLS, None).digest == world.kit.digest


def test_a_file_that_is_taken_away_while_a_run_is_under_way_is_missed(world: KitWorld) -> None:
    path = world.target.directory / "checks.yaml"
    before = path.read_text()
    path.unlink()
    try:
        with pytest.raises(ChangedMeanwhile) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        path.write_text(before)
    assert [p.file for p in raised.value.problems] == ["images/app/checks.yaml"]


def test_a_template_edited_for_a_build_and_back_is_found_out(world: KitWorld) -> None:
    """What was rendered in between counts, not only the bytes at both ends."""
    other = replace(world.image, input_hash=Digest.of(b"rendered of something else"))
    with pytest.raises(ChangedMeanwhile):
        make_kit(world.catalogue, other, world.pool, TOOLS, None)


def test_the_kit_is_a_function_of_the_catalogue_alone(world: KitWorld) -> None:
    assert json.loads(world.kit.manifest)["config"]["mediaType"] == CONFIG_TYPE
    assert kits.kit_versions() == tuple(
        json.loads(next(b for b in world.kit.blobs.values() if isinstance(b, bytes) and b'"versions"' in b))[
            "versions"
        ]
    )
