"""Method sections with other values. Pure functions; what is made here never has a field of another method."""

from __future__ import annotations

from collections.abc import Mapping

from tunedesk.core.spec import MethodSection, check_method, fields_of


def with_changes(
    section: MethodSection, changes: Mapping[str, object], earlier: MethodSection | None = None
) -> MethodSection:
    """`section` with `changes`. Raises `pydantic.ValidationError`.

    Another method takes over what it shares with this one, and what it had in `earlier`, unless they contradict.
    """
    name = changes.get("name", section.name)
    if name == section.name:
        return _section({**_stated(section), **changes})
    fresh = _section({**changes, "name": name})
    shared = _section({**(_stated(earlier) if earlier else {}), **_stated(section), **changes, "name": name})
    return fresh if check_method(shared) else shared


def _section(values: Mapping[str, object]) -> MethodSection:
    """The values that the method has, as a section; those at their default count as not stated."""
    named = MethodSection.model_validate({"name": values["name"]})
    allowed = {"name", *fields_of(named.name)}
    return MethodSection.model_validate({key: value for key, value in values.items() if key in allowed})


def _stated(section: MethodSection) -> dict[str, object]:
    return section.model_dump(include=set(section.model_fields_set) | {"name"})
