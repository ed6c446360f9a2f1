"""YAML read strictly: plain values only, and no field twice, of which one would win in silence."""

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice in one mapping."""


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"field {key.value!r} stands twice in one mapping", key.start_mark
            )
        seen.add(key.value)
    loader.flatten_mapping(node)
    return dict(loader.construct_mapping(node, deep=True))


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(text: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, names a Python object, or has a field twice.
    """
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
