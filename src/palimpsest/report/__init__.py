"""Pages: how numbers are shown, never how they are made."""

from palimpsest.report.page import Report

__all__ = ["Report"]
