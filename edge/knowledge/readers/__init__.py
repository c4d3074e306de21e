"""A file per kind of document: bytes into a draft. Each loads its library when it is first asked, in the child process.

A reader is a function `(raw, draft)`; it raises `Unreadable` for what it can't read, in words for people.
"""
