"""Does the old fact still show, can it be removed, and can an edit carry its consequences."""
