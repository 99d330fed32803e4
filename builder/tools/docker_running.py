"""The containers that run on a Docker engine, with what their images are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.errors import ToolError
from builder.tools.docker_engine import Engine, connect


def running_containers(engine: Engine) -> Iterator[Mapping[str, Any]]:
    """`name`, `image` (as it was asked for) and `details` (the image's inspection) of each.

    A container that ends meanwhile is left out. Raises ToolError when the engine fails.
    """
    from docker.errors import DockerException, NotFound

    client = connect(engine)
    try:
        details: dict[str, Any] = {}
        for one in client.api.containers():
            image = one["ImageID"]
            try:
                if image not in details:
                    details[image] = client.api.inspect_image(image)
            except NotFound:
                details[image] = {}
            name = (one.get("Names") or ["?"])[0].lstrip("/")
            yield {"name": name, "image": str(one["Image"]), "details": details[image]}
    except DockerException as error:
        raise ToolError(
            "the engine does not tell what runs",
            context=str(error)[:500],
            hint="goldsmith doctor says which engine answers",
        ) from None
    finally:
        client.close()
