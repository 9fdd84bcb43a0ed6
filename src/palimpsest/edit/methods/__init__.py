"""One file per editing method; `palimpsest.edit.registry` finds them by name."""
