"""An open, synthetic corpus in the folder and file formats of CSJ (see README.md beside this file).

The programs of this package are started by `tools/make_open_corpus.py`; nothing is re-exported
here.
"""
