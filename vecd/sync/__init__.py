"""Sync: a library follows a folder: new, changed, renamed and deleted files.

    stamps        whether a file is what it was: size, times, inode, digest
    plan          what has to be done: the files that there are against what is known of them; pure
    reading       reads a file that may be in the middle of being written
    session       one run after another over a connection: holds the sync, reads, sends, commits
    watching      which paths have changed (inotify, through watchfiles), and when they are quiet
    follow        runs a session whenever something changes, until it is to stop
    runner        a sync that the daemon runs, as a connector; `python -m vecd.sync` is its process

What is known of a file is stored with its documents, in one transaction: so a sync can be killed at any moment, and the
next one continues. Rules: this package is a client of the daemon's socket; what becomes of a file is decided by
vecd/files/ and vecd/wire/. Times of files are never compared with a clock, but for how fresh a file is.
"""
