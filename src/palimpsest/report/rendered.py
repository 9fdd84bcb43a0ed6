"""Pages from templates: one environment, in which every string is escaped and a name that is missing is an error."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(template: str, **values: Any) -> str:
    """A template of `report/templates` with its values, as text."""
    environment = Environment(
        loader=PackageLoader("palimpsest.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
