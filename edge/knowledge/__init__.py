"""Knowledge from files: found, compared with what is known, read in a child process, and cut into chunks."""
