"""Textbook versions of what the library does faster: plain, slow, and sharing no code with it but `Model` and `Fact`."""
