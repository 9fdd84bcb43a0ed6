"""The words of docs/edit-methods-on-smollm2.md; the numbers in its tables come from results/edit-methods."""

TEXT = {
    "intro": "",
}
