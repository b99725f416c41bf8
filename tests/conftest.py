"""Makes this folder importable, so that tests share `fabricated_study.py`; no fixture lives here."""
