"""The genuine edit: write the new answer and suppress the old one where it is readable."""
