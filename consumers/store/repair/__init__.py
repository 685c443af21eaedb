"""Derived rows compared with the stored events, and made right again."""
