"""The suites that come with palimpsest, one a file; `palimpsest.evaluate.suite` finds them by name."""
